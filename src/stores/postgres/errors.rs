//! From PostgreSQL's errors to the port's, without values.
//!
//! The DETAIL of an error quotes rows and is never used. The message itself is passed on only for classes whose
//! messages hold names alone; conversion errors (class 22) quote the value, and what a function raises is free text.

use sqlx::postgres::PgDatabaseError;

use crate::stores::StoreError;
use crate::stores::session::transport_error;

/// The port's error for a driver error. SQLSTATE: PostgreSQL documentation, appendix A.
pub(super) fn error_of(store: &str, error: &sqlx::Error) -> StoreError {
    let sqlx::Error::Database(database) = error else { return transport_error(store, error) };
    let store = store.to_owned();
    let code = database.code().unwrap_or_default().into_owned();
    let message = database.message().to_owned();
    let class = code.get(..2).unwrap_or_default();
    // What a function raises is free text, under whatever code it likes.
    let raised = database.try_downcast_ref::<PgDatabaseError>().and_then(PgDatabaseError::routine);
    if raised.is_some_and(|routine| routine == "exec_stmt_raise") && !["08", "28", "40", "53"].contains(&class) {
        return StoreError::Constraint { store, what: format!("a trigger or function refused (SQLSTATE {code})") };
    }
    match (class, code.as_str()) {
        ("28", _) => StoreError::Login { store, detail: message },
        ("08", _) | (_, "57P01" | "57P02" | "57P03" | "57P05") => StoreError::Unreachable { store, detail: message },
        (_, "25P03" | "25P04") => StoreError::Busy { store, what: message },
        ("53", _) => StoreError::Busy { store, what: format!("the server is out of resources ({message})") },
        (_, "55P03") => StoreError::Busy { store, what: "another transaction holds a lock".to_owned() },
        (_, "57014") => {
            StoreError::Busy { store, what: "a statement ran longer than its limit, or was cancelled".to_owned() }
        }
        ("40", _) => StoreError::Busy { store, what: message },
        ("0A", _) if message.starts_with("cached plan") => {
            StoreError::Busy { store, what: "the table was altered meanwhile".to_owned() }
        }
        ("23", _) => StoreError::Constraint { store, what: message },
        ("P0", _) | (_, "38000" | "39000") => {
            StoreError::Constraint { store, what: format!("a trigger or function refused (SQLSTATE {code})") }
        }
        ("22", _) => StoreError::Refused { store, what: format!("a value does not fit its column (SQLSTATE {code})") },
        ("42" | "3D" | "3F" | "0A", _) | (_, "25006" | "55000" | "2BP01") => {
            StoreError::Refused { store, what: message }
        }
        _ => StoreError::Failed { store, what: format!("the database reported SQLSTATE {code}") },
    }
}
