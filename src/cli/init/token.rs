//! `init --root pkcs11`.

use std::path::PathBuf;

use super::quoted;
use crate::keys::slot::Device;

/// Where the PIN comes from unless a file is named.
const PIN: &str = "${WANGCHUAN_TOKEN_PIN}";

/// Arguments about a PKCS#11 token.
#[derive(Debug, clap::Args)]
pub struct TokenArgs {
    /// The PKCS#11 module: a library of the token's maker.
    #[arg(long, value_name = "LIBRARY", required_if_eq("root", "pkcs11"))]
    module: Option<PathBuf>,
    /// The label of the token.
    #[arg(long, value_name = "LABEL", required_if_eq("root", "pkcs11"))]
    token_label: Option<String>,
    /// A file with the token's user PIN; otherwise from WANGCHUAN_TOKEN_PIN.
    #[arg(long, value_name = "FILE")]
    pin_file: Option<String>,
    /// What stands behind the module; certificates rest on this word.
    #[arg(long, value_enum, default_value_t = DeviceChoice::Software)]
    device: DeviceChoice,
}

/// What may stand behind a module.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
enum DeviceChoice {
    /// Software, or not known: any copy of its storage brings destroyed keys back (class D).
    Software,
    /// A device whose keys are backed up or cloned (class B).
    HardwareWithBackup,
    /// A device without any backup or clone of its keys (class A).
    HardwareWithoutBackup,
}

impl DeviceChoice {
    fn device(self) -> Device {
        match self {
            Self::Software => Device::Software,
            Self::HardwareWithBackup => Device::HardwareWithBackup,
            Self::HardwareWithoutBackup => Device::HardwareWithoutBackup,
        }
    }
}

impl TokenArgs {
    /// The lines of `[root]`.
    pub(super) fn section(&self, retention_days: Option<u32>) -> String {
        let module = self.module.as_deref().unwrap_or_else(|| std::path::Path::new("")).display().to_string();
        let pin = self.pin_file.as_ref().map_or_else(|| PIN.to_owned(), |file| format!("file:{file}"));
        let lines = [
            ("kind", quoted("pkcs11")),
            ("path", quoted("root.slot")),
            ("module", quoted(&module)),
            ("token_label", quoted(self.token_label.as_deref().unwrap_or_default())),
            ("pin", quoted(&pin)),
            ("device", quoted(self.device.device().name())),
        ];
        let days = retention_days.map(|days| ("snapshot_retention_days", days.to_string()));
        let lines = lines.into_iter().chain(days).map(|(key, value)| format!("{key} = {value}"));
        lines.chain([String::new()]).collect::<Vec<_>>().join("\n")
    }
}
