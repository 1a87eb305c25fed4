//! PKCS#11 modules: libraries that are loaded into this process once and initialised once.
//!
//! Whatever is done with a module is done under its lock, with sessions of its own that are closed before the lock is given back.
//! So a module need not be safe for threads, and when the connection to a device was lost, or the device is not there, the module is finalised and
//! initialised anew, as several vendors' want it, without pulling a session from under anybody. A module that somebody else in
//! this process initialised is used and never finalised.

use std::collections::BTreeMap;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

use cryptoki::context::{CInitializeArgs, CInitializeFlags, Pkcs11};
use cryptoki::error::{Error, RvError};

use crate::keys::slot::{SlotError, TokenError};

type Result<T, E = SlotError> = std::result::Result<T, E>;

/// Write permission for all.
const WRITABLE_BY_ALL: u32 = 0o002;

/// Every module that this process has loaded. They stay until its end: libraries with threads of their own do not survive
/// being unloaded.
static MODULES: Mutex<BTreeMap<PathBuf, Arc<Mutex<Module>>>> = Mutex::new(BTreeMap::new());

#[derive(Default)]
struct Module {
    library: Option<Pkcs11>,
    state: State,
}

#[derive(Default, Clone, Copy, PartialEq, Eq)]
enum State {
    #[default]
    NotInitialized,
    /// By this module, which may finalise it.
    Initialized,
    /// By somebody else in this process.
    Foreign,
}

/// Works with a module, alone.
///
/// # Errors
/// [`TokenError::Module`], or what `work` fails with.
pub(super) fn with<T>(path: &Path, work: impl FnOnce(&Pkcs11) -> Result<T>) -> Result<T> {
    let name = std::fs::canonicalize(path).map_err(|fault| unusable(path, fault.to_string()))?;
    let module = MODULES.lock().unwrap_or_else(PoisonError::into_inner).entry(name.clone()).or_default().clone();
    let mut module = module.lock().unwrap_or_else(PoisonError::into_inner);
    let library = module.ready(&name)?;
    let done = work(&library);
    // A token that came after the module was initialised is not seen by every module either.
    if matches!(done, Err(SlotError::Token(TokenError::Lost { .. } | TokenError::NotPresent { .. }))) {
        module.start_over();
    }
    done
}

impl Module {
    fn ready(&mut self, path: &Path) -> Result<Pkcs11> {
        let library = if let Some(library) = &self.library {
            library.clone()
        } else {
            let loaded = load(path)?;
            self.library.insert(loaded).clone()
        };
        if self.state == State::NotInitialized {
            self.state = match library.initialize(CInitializeArgs::new(CInitializeFlags::OS_LOCKING_OK)) {
                Ok(()) => State::Initialized,
                Err(Error::Pkcs11(RvError::CryptokiAlreadyInitialized, _)) => State::Foreign,
                Err(error) => return Err(unusable(path, format!("it cannot be initialised: {error}"))),
            };
        }
        Ok(library)
    }

    /// Lets go of a connection that broke; the next use initialises the module again.
    fn start_over(&mut self) {
        if let (State::Initialized, Some(library)) = (self.state, self.library.clone()) {
            // It is broken already; whatever it answers, it is initialised again.
            let _ = library.finalize();
        }
        self.state = State::NotInitialized;
    }
}

/// Code that anybody on this host could replace is not loaded into a process that holds keys.
fn load(path: &Path) -> Result<Pkcs11> {
    let metadata = std::fs::metadata(path).map_err(|fault| unusable(path, fault.to_string()))?;
    if metadata.mode() & WRITABLE_BY_ALL != 0 {
        return Err(unusable(path, "everybody on this host can write it".to_owned()));
    }
    Pkcs11::new(path).map_err(|error| unusable(path, error.to_string()))
}

fn unusable(path: &Path, what: String) -> SlotError {
    TokenError::Module { path: path.to_owned(), what }.into()
}
