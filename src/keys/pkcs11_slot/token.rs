//! A token behind a module, and what lies in it. Each use finds the token by its label and opens a session of its own.

use cryptoki::context::Pkcs11;
use cryptoki::error::{Error, RvError};
use cryptoki::mechanism::{Mechanism, MechanismType};
use cryptoki::object::{Attribute, AttributeType, KeyType, ObjectClass, ObjectHandle};
use cryptoki::session::{Session, UserType};
use cryptoki::slot::{Slot, TokenInfo};
use cryptoki::types::AuthPin;

use super::pin::{self, Notes};
use super::wrapping::{self, Wrapping};
use super::{Pkcs11Setup, fault};
use crate::keys::slot::{Device, PinTrouble, SlotError, TokenError, TokenMarks};
use crate::keys::{Generation, InstallationId, Key};

type Result<T, E = SlotError> = std::result::Result<T, E>;

/// What makers of software tokens call themselves (`CK_TOKEN_INFO.manufacturerID`).
const SOFTWARE_MAKERS: [&str; 1] = ["SoftHSM project"];
/// AES-256, in bytes.
const KEY_BYTES: u64 = 32;

/// A token that is there.
pub(super) struct Token<'m> {
    library: &'m Pkcs11,
    slot: Slot,
    info: TokenInfo,
    place: String,
}

impl<'m> Token<'m> {
    /// The one initialised token with the configured label.
    pub(super) fn find(library: &'m Pkcs11, setup: &Pkcs11Setup) -> Result<Self> {
        let place = setup.place();
        let slots = library.get_slots_with_token().map_err(|error| fault::of(&place, &error))?;
        let mut found = Vec::new();
        for slot in slots {
            // A slot whose token went away just now is one without a token.
            let Ok(info) = library.get_token_info(slot) else { continue };
            if info.token_initialized() && info.label().trim_end() == setup.token_label {
                found.push((slot, info));
            }
        }
        let mut found = found.into_iter();
        let (slot, info) = match (found.next(), found.next()) {
            (Some(only), None) => only,
            (Some(_), Some(_)) => return Err(unfit(&place, "there are several tokens with this label")),
            (None, _) => return Err(TokenError::NotPresent { place }.into()),
        };
        if setup.device != Device::Software && SOFTWARE_MAKERS.contains(&info.manufacturer_id().trim_end()) {
            let what = "it is a software token, and `device` under [root] declares hardware";
            return Err(unfit(&place, what));
        }
        Ok(Self { library, slot, info, place })
    }

    /// What it can do.
    pub(super) fn mechanisms(&self) -> Result<Vec<MechanismType>> {
        self.library.get_mechanism_list(self.slot).map_err(|error| fault::of(&self.place, &error))
    }

    /// How roots are wrapped here.
    pub(super) fn wrapping(&self) -> Result<Wrapping> {
        let mechanisms = self.mechanisms()?;
        let none = "it has neither AES-GCM nor AES key wrap, with keys that it makes itself";
        Wrapping::of(&mechanisms).ok_or_else(|| unfit(&self.place, none))
    }

    /// A new session, logged in with a PIN that was not refused before.
    pub(super) fn session(&self, notes: &Notes<'_>) -> Result<Opened<'_>> {
        let trouble = |why| SlotError::from(TokenError::Pin { place: self.place.clone(), why });
        if let Some(why) = pin::trouble(&self.info) {
            return Err(trouble(why));
        }
        let serial = self.info.serial_number().trim_end();
        if notes.hold_back(serial)? {
            return Err(trouble(PinTrouble::HeldBack));
        }
        let session = self.library.open_rw_session(self.slot).map_err(|error| fault::of(&self.place, &error))?;
        let pin = AuthPin::new(Box::<str>::from(notes.pin.dangerous_text()));
        match session.login(UserType::User, Some(&pin)) {
            // A session of somebody else in this process may be logged in.
            Ok(()) | Err(Error::Pkcs11(RvError::UserAlreadyLoggedIn, _)) => notes.forget()?,
            Err(error) => match fault::code(&error) {
                Some(RvError::PinIncorrect | RvError::PinInvalid | RvError::PinLenRange) => {
                    notes.write(serial)?;
                    return Err(trouble(PinTrouble::Refused));
                }
                Some(RvError::PinLocked) => return Err(trouble(PinTrouble::Locked)),
                Some(RvError::PinExpired) => return Err(trouble(PinTrouble::ToBeChanged)),
                Some(RvError::UserPinNotInitialized) => return Err(trouble(PinTrouble::NotSet)),
                _ => return Err(fault::of(&self.place, &error)),
            },
        }
        Ok(Opened { session, place: &self.place })
    }
}

/// The names of a generation's key in the token: `CKA_ID` and `CKA_LABEL`.
pub(super) struct Names {
    id: Vec<u8>,
    label: Vec<u8>,
}

impl Names {
    pub(super) fn of(installation: &InstallationId, generation: Generation) -> Self {
        let id = [&installation[..], &generation.to_be_bytes()].concat();
        Self { id, label: format!("wangchuan {} {generation}", hex::encode(installation)).into_bytes() }
    }
}

/// A session that is logged in; it ends, and with it the login, when it is dropped.
pub(super) struct Opened<'t> {
    pub(super) session: Session,
    place: &'t str,
}

impl Opened<'_> {
    pub(super) fn fault(&self, error: &Error) -> SlotError {
        fault::of(self.place, error)
    }

    fn find(&self, more: Option<Attribute>) -> Result<Vec<ObjectHandle>> {
        let mut template = vec![Attribute::Class(ObjectClass::SECRET_KEY), Attribute::Token(true)];
        template.extend(more);
        self.session.find_objects(&template).map_err(|error| self.fault(&error))
    }

    /// The keys of a generation, by id or by label.
    pub(super) fn keys(&self, names: &Names) -> Result<Vec<ObjectHandle>> {
        let mut found = self.find(Some(Attribute::Id(names.id.clone())))?;
        for labelled in self.find(Some(Attribute::Label(names.label.clone())))? {
            if !found.contains(&labelled) {
                found.push(labelled);
            }
        }
        Ok(found)
    }

    /// The generations of an installation that have keys, ascending; one twice that has two.
    pub(super) fn generations(&self, installation: &InstallationId) -> Result<Vec<Generation>> {
        let mut found = Vec::new();
        for key in self.find(None)? {
            let id = self.id_of(key)?.unwrap_or_default();
            let number = id.strip_prefix(&installation[..]).and_then(|rest| rest.try_into().ok());
            found.extend(number.map(Generation::from_be_bytes).filter(|generation| *generation > 0));
        }
        found.sort_unstable();
        Ok(found)
    }

    /// The id of an object; `None` when there is no such object (any more).
    pub(super) fn id_of(&self, object: ObjectHandle) -> Result<Option<Vec<u8>>> {
        match self.session.get_attributes(object, &[AttributeType::Id]) {
            Ok(attributes) => Ok(attributes.into_iter().find_map(|attribute| match attribute {
                Attribute::Id(id) => Some(id),
                _ => None,
            })),
            Err(Error::Pkcs11(RvError::ObjectHandleInvalid, _)) => Ok(None),
            Err(error) => Err(self.fault(&error)),
        }
    }

    /// Whether a handle from before still leads to a key with these names.
    pub(super) fn still_leads_to(&self, handle: ObjectHandle, names: &Names) -> Result<bool> {
        Ok(self.id_of(handle)?.is_some_and(|id| id == names.id))
    }

    /// Makes the key of a generation in the token. It can neither be read nor taken out.
    pub(super) fn make(&self, names: &Names, wrapping: Wrapping) -> Result<ObjectHandle> {
        let mut template = vec![
            Attribute::Class(ObjectClass::SECRET_KEY),
            Attribute::KeyType(KeyType::AES),
            Attribute::ValueLen(KEY_BYTES.into()),
            Attribute::Token(true),
            Attribute::Private(true),
            Attribute::Sensitive(true),
            Attribute::Extractable(false),
            Attribute::Id(names.id.clone()),
            Attribute::Label(names.label.clone()),
        ];
        template.extend(wrapping.uses());
        // Nor doubled in the token; this attribute came late (PKCS#11 2.40), so a token may not know it.
        template.push(Attribute::Copyable(false));
        match self.session.generate_key(&Mechanism::AesKeyGen, &template) {
            Err(Error::Pkcs11(RvError::AttributeTypeInvalid | RvError::TemplateInconsistent, _)) => {
                template.pop();
                self.session.generate_key(&Mechanism::AesKeyGen, &template)
            }
            made => made,
        }
        .map_err(|error| self.fault(&error))
    }

    /// The marks of a key; one that the token does not tell is off.
    pub(super) fn marks(&self, key: ObjectHandle) -> Result<TokenMarks> {
        let wanted = [AttributeType::NeverExtractable, AttributeType::AlwaysSensitive, AttributeType::Local];
        let attributes = self.session.get_attributes(key, &wanted).map_err(|error| self.fault(&error))?;
        Ok(TokenMarks {
            never_extractable: attributes.contains(&Attribute::NeverExtractable(true)),
            always_sensitive: attributes.contains(&Attribute::AlwaysSensitive(true)),
            local: attributes.contains(&Attribute::Local(true)),
        })
    }

    /// Destroys a key.
    pub(super) fn destroy(&self, key: ObjectHandle) -> Result<()> {
        match self.session.destroy_object(key) {
            // Somebody was quicker.
            Ok(()) | Err(Error::Pkcs11(RvError::ObjectHandleInvalid, _)) => Ok(()),
            Err(error) => Err(self.fault(&error)),
        }
    }

    pub(super) fn wrap(
        &self,
        key: ObjectHandle,
        wrapping: Wrapping,
        root: &Key,
        bound_to: &[u8],
        nonce: [u8; wrapping::NONCE_BYTES],
    ) -> Result<String> {
        wrapping::wrap(&self.session, key, wrapping, root, bound_to, nonce).map_err(|error| self.fault(&error))
    }

    /// Opens a wrapped root; `None` when this key does not open it. Tokens have several answers to a wrong tag, a general error
    /// among them; it counts as lost only when the token does not answer the next question either.
    pub(super) fn unwrap(
        &self,
        key: ObjectHandle,
        wrapped: &(Wrapping, Vec<u8>),
        bound_to: &[u8],
    ) -> Result<Option<Key>> {
        match wrapping::unwrap(&self.session, key, wrapped, bound_to) {
            Ok(root) => Ok(Some(root)),
            Err(error) => match fault::code(&error) {
                Some(RvError::GeneralError | RvError::FunctionFailed) if self.id_of(key).is_ok() => Ok(None),
                Some(code) if fault::is_loss(code) => Err(self.fault(&error)),
                Some(RvError::TokenNotPresent | RvError::KeyFunctionNotPermitted | RvError::ActionProhibited) => {
                    Err(self.fault(&error))
                }
                _ => Ok(None),
            },
        }
    }
}

pub(super) fn unfit(place: &str, what: &'static str) -> SlotError {
    TokenError::Unfit { place: place.to_owned(), what }.into()
}
