//! What a module's answers mean. Nothing of an answer but the function's and the code's name is passed on.

use cryptoki::error::{Error, RvError};

use crate::keys::slot::{SlotError, TokenError};

/// An answer as an error of the slot.
pub(super) fn of(place: &str, error: &Error) -> SlotError {
    let place = place.to_owned();
    let what = name(error);
    match code(error) {
        Some(RvError::TokenNotPresent | RvError::TokenNotRecognized | RvError::SlotIdInvalid) => {
            TokenError::NotPresent { place }
        }
        Some(answer) if is_loss(answer) => TokenError::Lost { place, what },
        _ => TokenError::Refused { place, what },
    }
    .into()
}

/// The code of an answer.
pub(super) fn code(error: &Error) -> Option<&RvError> {
    match error {
        Error::Pkcs11(code, _) => Some(code),
        _ => None,
    }
}

/// Function and code of an answer.
fn name(error: &Error) -> String {
    match error {
        Error::Pkcs11(code, function) => format!("C_{function:?} answers {code:?}"),
        other => other.to_string(),
    }
}

/// Answers after which a new session may well succeed. `GeneralError` and `FunctionFailed` are among them: that is how network
/// HSMs say that they are out of reach.
pub(super) fn is_loss(code: &RvError) -> bool {
    use RvError as Rv;
    matches!(
        code,
        Rv::SessionHandleInvalid
            | Rv::SessionClosed
            | Rv::SessionCount
            | Rv::DeviceRemoved
            | Rv::DeviceError
            | Rv::DeviceMemory
            | Rv::HostMemory
            | Rv::CryptokiNotInitialized
            | Rv::UserNotLoggedIn
            | Rv::OperationActive
            | Rv::OperationNotInitialized
            | Rv::Cancel
            | Rv::FunctionCanceled
            | Rv::FunctionFailed
            | Rv::GeneralError
    )
}
