//! Tokens of SoftHSM, and a module in front of it that notes what is called and fails on demand.
//!
//! SoftHSM reads `SOFTHSM2_CONF` once per process. Tests in this process share the folder of tokens that `tests/run` names, each
//! with a token of its own; tests that copy or remove tokens give child processes a folder of their own.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::rc::Rc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};

use cryptoki::context::{CInitializeArgs, CInitializeFlags, Pkcs11};
use cryptoki::session::UserType;
use cryptoki::types::AuthPin;
use wangchuan::keys::pkcs11_slot::Pkcs11Setup;
use wangchuan::keys::slot::Device;
use wangchuan::policy::registry::SecretText;

use super::announce::{SOFTHSM, switched_on};
use super::program::Program;

/// The user PIN of every token.
pub const PIN: &str = "271828";
const OFFICER_PIN: &str = "314159265";

static ONE: Mutex<()> = Mutex::new(());

/// A token.
#[derive(Debug, Clone)]
pub struct SoftHsm {
    /// The library.
    pub module: PathBuf,
    pub label: String,
    /// The configuration with which it is found, if it is not in the folder of this process.
    conf: Option<PathBuf>,
    /// SoftHSM is loaded here by the code under test, by tests, and behind `module.c`, and is not made for that many hands at
    /// once: one test at a time has a token in this process.
    alone: Option<Rc<MutexGuard<'static, ()>>>,
}

impl SoftHsm {
    /// A new token for tests in this process, or `None` where there is no SoftHSM.
    pub fn token() -> Option<Self> {
        switched_on(SOFTHSM)?;
        let alone = ONE.lock().unwrap_or_else(PoisonError::into_inner);
        Some(Self::made_here(Rc::new(alone)))
    }

    /// One more for the same test.
    pub fn another(&self) -> Self {
        Self::made_here(self.alone.clone().unwrap())
    }

    fn made_here(alone: Rc<MutexGuard<'static, ()>>) -> Self {
        assert!(switched_on("SOFTHSM2_CONF").is_some(), "tests/run sets SOFTHSM2_CONF");
        let hsm = Self { alone: Some(alone), ..Self::unmade(None).unwrap() };
        let module = hsm.module();
        let mut slots = module.get_slots_with_token().unwrap().into_iter();
        let free = slots.find(|slot| !module.get_token_info(*slot).unwrap().token_initialized()).unwrap();
        module.init_token(free, &AuthPin::new(OFFICER_PIN.into()), &hsm.label).unwrap();
        let session = module.open_rw_session(free).unwrap();
        session.login(UserType::So, Some(&AuthPin::new(OFFICER_PIN.into()))).unwrap();
        session.init_pin(&AuthPin::new(PIN.into())).unwrap();
        drop(session);
        hsm
    }

    /// The module as a test uses it beside the code under test. SoftHSM only sees tokens that were made by this process, or before
    /// its module was initialised; so it is initialised here and stays so.
    pub fn module(&self) -> Pkcs11 {
        let module = Pkcs11::new(&self.module).unwrap();
        // Another test was first.
        let _ = module.initialize(CInitializeArgs::new(CInitializeFlags::OS_LOCKING_OK));
        module
    }

    /// A new token in `tokens/` of this folder, for child processes.
    pub fn in_folder(folder: &Path) -> Option<Self> {
        let conf = configure(folder);
        let hsm = Self::unmade(Some(conf.clone()))?;
        let made = Command::new("softhsm2-util")
            .args(["--init-token", "--free", "--label", &hsm.label, "--pin", PIN, "--so-pin", OFFICER_PIN, "--module"])
            .arg(&hsm.module)
            .env("SOFTHSM2_CONF", conf)
            .output()
            .unwrap();
        assert!(made.status.success(), "{}", String::from_utf8_lossy(&made.stderr));
        Some(hsm)
    }

    fn unmade(conf: Option<PathBuf>) -> Option<Self> {
        static MADE: AtomicU32 = AtomicU32::new(0);
        let module = PathBuf::from(switched_on(SOFTHSM)?);
        let label = format!("roots {} {}", std::process::id(), MADE.fetch_add(1, Ordering::Relaxed));
        Some(Self { module, label, conf, alone: None })
    }

    /// How a slot opens it.
    pub fn setup(&self, folder: &Path) -> Pkcs11Setup {
        Pkcs11Setup {
            module: self.module.clone(),
            token_label: self.label.clone(),
            pin: SecretText::new(PIN.to_owned()),
            device: Device::Software,
            snapshot_retention_days: None,
            folder: folder.to_owned(),
        }
    }

    /// The lines of `[root]`.
    pub fn root_section(&self, path: &str) -> String {
        format!(
            "kind = \"pkcs11\"\npath = \"{path}\"\nmodule = \"{}\"\ntoken_label = \"{}\"\npin = \"{PIN}\"",
            self.module.display(),
            self.label
        )
    }

    /// The program, with the tokens of this one's folder.
    pub fn program(&self, directory: &Path) -> Program {
        let program = Program::in_directory(directory);
        match &self.conf {
            Some(conf) => program.with("SOFTHSM2_CONF", conf.to_str().unwrap()),
            None => program,
        }
    }

    /// The same token behind the module of `module.c`.
    pub fn behind(self, folder: &Path) -> (Self, Behind) {
        let control = folder.join("module.control");
        let library = folder.join("module.so");
        let define = |name: &str, path: &Path| format!("-D{name}=\"{}\"", path.display());
        let source = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/it/pkcs11/module.c");
        let done = Command::new("cc")
            .args(["-std=gnu11", "-Wall", "-Werror", "-shared", "-fPIC"])
            .args([define("REAL", &self.module), define("CONTROL", &control)])
            .args(["-o".as_ref(), library.as_os_str(), source.as_ref(), "-ldl".as_ref()])
            .output()
            .unwrap();
        assert!(done.status.success(), "{}", String::from_utf8_lossy(&done.stderr));
        (Self { module: library, ..self }, Behind { control })
    }

    /// The same token as a copy of its folder has it.
    pub fn as_in(&self, folder: &Path) -> Self {
        Self { conf: Some(configure(folder)), ..self.clone() }
    }
}

/// Writes the configuration of the tokens in this folder.
fn configure(folder: &Path) -> PathBuf {
    let tokens = folder.join("tokens");
    std::fs::create_dir_all(&tokens).unwrap();
    let conf = folder.join("softhsm2.conf");
    let text = format!("directories.tokendir = {}\nobjectstore.backend = file\nlog.level = ERROR\n", tokens.display());
    std::fs::write(&conf, text).unwrap();
    conf
}

/// What the module of `module.c` is told, and what it noted.
pub struct Behind {
    control: PathBuf,
}

impl Behind {
    /// Does this from now on; see `module.c`.
    pub fn does(&self, what: &str) {
        // A number of its own: the module begins to count anew when the text changes.
        static SAID: AtomicU32 = AtomicU32::new(0);
        std::fs::write(&self.control, format!("{what}\n{}\n", SAID.fetch_add(1, Ordering::Relaxed))).unwrap();
    }

    /// Calls of a function so far that ended with this answer.
    pub fn count(&self, function: &str, answer: u64) -> usize {
        let wanted = format!("{function} {answer}");
        self.log().lines().filter(|line| *line == wanted).count()
    }

    fn log(&self) -> String {
        std::fs::read_to_string(self.control.with_extension("control.log")).unwrap_or_default()
    }
}
