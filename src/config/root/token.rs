//! `[root]` with `kind = "pkcs11"`.

use std::path::PathBuf;

use super::super::Place;
use super::super::section::Reading;
use super::{RawRoot, SlotSettings};
use crate::keys::pkcs11_slot::Pkcs11Setup;
use crate::keys::slot::Device;

/// A token's label has at most this many bytes (`CK_TOKEN_INFO`).
const LABEL_LIMIT: usize = 32;

impl RawRoot {
    pub(super) fn check_pkcs11(
        &self,
        place: &Place,
        path: Option<PathBuf>,
        reading: &mut Reading<'_>,
    ) -> Option<SlotSettings> {
        let module = self.module.as_ref().map(|module| reading.path(module));
        if module.is_none() {
            let advice = "add `module = \"/usr/lib/…/library.so\"` here: the library of the token's maker";
            reading.fault(place, "the key `module` is missing", advice);
        }
        let label = self.check_label(place, reading);
        let pin = if let Some(pin) = &self.pin {
            reading.secret(&place.key("pin"), pin)
        } else {
            let advice = "add `pin = \"credential:token-pin\"` or `pin = \"${TOKEN_PIN}\"` here";
            reading.fault(place, "the key `pin` is missing", advice);
            None
        };
        let device = self.device.unwrap_or_default();
        let dated = self.check_backups(place, device, reading);
        let setup = Pkcs11Setup {
            module: module?,
            token_label: label?,
            pin: pin?,
            device,
            snapshot_retention_days: dated.then_some(self.snapshot_retention_days)?,
            folder: path?,
        };
        Some(SlotSettings::Pkcs11 { setup: Box::new(setup) })
    }

    fn check_label(&self, place: &Place, reading: &mut Reading<'_>) -> Option<String> {
        match &self.token_label {
            Some(label) if !label.trim().is_empty() && label.len() <= LABEL_LIMIT && label.trim_end() == label => {
                Some(label.clone())
            }
            Some(_) => {
                let what = format!("a token's label has 1 to {LABEL_LIMIT} bytes and no blanks at its end");
                reading.fault(&place.key("token_label"), what, "write it as `pkcs11-tool --list-slots` shows it");
                None
            }
            None => {
                let advice = "add `token_label = \"…\"` here: the label that the token was initialised with";
                reading.fault(place, "the key `token_label` is missing", advice);
                None
            }
        }
    }

    /// Only of a device with backups is it said for how long those are kept.
    fn check_backups(&self, place: &Place, device: Device, reading: &mut Reading<'_>) -> bool {
        if device == Device::HardwareWithBackup {
            return self.check_days(place, reading).is_some();
        }
        if self.snapshot_retention_days.is_some() {
            let what = format!("`device = \"{}\"` has no backups that end", device.name());
            let advice = "remove it, or write `device = \"hardware-with-backup\"`";
            reading.fault(&place.key("snapshot_retention_days"), what, advice);
            return false;
        }
        true
    }
}
