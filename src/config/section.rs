//! What all sections need while they are checked: faults are collected, not returned at the first.

use std::fmt::Write;
use std::path::{Path, PathBuf};

use chrono_tz::{TZ_VARIANTS, Tz};

use super::diagnostic::{Fault, nearest};
use super::document::{Document, Place};
use super::secret::{Resolver, SecretError, SecretUrl, SecretValue};
use crate::policy::registry::SecretText;

/// The longest name of an installation, a store or a policy.
const NAME_LIMIT: usize = 64;

/// A configuration being checked: the text, and what was found wrong or doubtful so far.
pub(super) struct Reading<'a> {
    document: &'a Document<'a>,
    resolver: Resolver<'a>,
    pub(super) faults: Vec<Fault>,
    pub(super) warnings: Vec<String>,
}

impl<'a> Reading<'a> {
    pub(super) fn new(document: &'a Document<'a>, resolver: Resolver<'a>) -> Self {
        Self { document, resolver, faults: Vec::new(), warnings: Vec::new() }
    }

    pub(super) fn document(&self) -> &'a Document<'a> {
        self.document
    }

    pub(super) fn base_dir(&self) -> &'a Path {
        self.resolver.base_dir
    }

    /// A path as the file means it: relative to the file.
    pub(super) fn path(&self, path: &Path) -> PathBuf {
        self.resolver.base_dir.join(path)
    }

    pub(super) fn fault(&mut self, place: &Place, what: impl Into<String>, advice: impl Into<String>) {
        self.faults.push(self.document.fault(place, what).advice(advice));
    }

    pub(super) fn warn(&mut self, warning: impl Into<String>) {
        self.warnings.push(warning.into());
    }

    /// Checks a name that stands in object names and on the command line.
    pub(super) fn name(&mut self, place: &Place, name: &str) -> Option<()> {
        let is_plain = |c: char| c.is_ascii_alphanumeric() || "-_".contains(c);
        if !name.is_empty() && name.len() <= NAME_LIMIT && name.chars().all(is_plain) {
            return Some(());
        }
        let what = format!("a name has 1 to {NAME_LIMIT} letters a-z, digits, `-` and `_`");
        self.fault(place, what, "correct the name; names stand in object names, so they must not identify anybody");
        None
    }

    pub(super) fn zone(&mut self, place: &Place, name: &str) -> Option<Tz> {
        let zone = name.parse().ok();
        if zone.is_none() {
            let advice = zone_advice(name);
            self.fault(place, format!("unknown time zone `{name}`"), advice);
        }
        zone
    }

    /// A variable of the environment, unless it is empty.
    pub(super) fn variable(&self, name: &str) -> Option<String> {
        (self.resolver.variable)(name).filter(|value| !value.is_empty())
    }

    pub(super) fn secret(&mut self, place: &Place, source: &SecretValue) -> Option<SecretText> {
        let resolved = source.resolve(&self.resolver);
        self.resolved(place, resolved)
    }

    pub(super) fn url(&mut self, place: &Place, source: &SecretUrl) -> Option<SecretText> {
        let resolved = source.resolve(&self.resolver);
        self.resolved(place, resolved)
    }

    fn resolved(&mut self, place: &Place, resolved: Result<SecretText, SecretError>) -> Option<SecretText> {
        resolved.map_err(|error| self.fault(place, error.to_string(), error.advice())).ok()
    }

    /// Checks the address of a service: encrypted, unless it never leaves this host, and without a password.
    pub(super) fn endpoint(&mut self, place: &Place, address: &str) -> Option<String> {
        let host = self.host(place, address, NO_ENDPOINT)?;
        if address.starts_with("http://") && !is_loopback(host) {
            let what = "plain http would carry data unprotected across the network";
            self.fault(place, what, "use https://; plain http is for 127.0.0.1, ::1 and localhost only");
            return None;
        }
        Some(address.trim_end_matches('/').to_owned())
    }

    /// Checks the address of a service to which nothing goes that must be hidden, and of which nothing is believed that is not
    /// signed: plain http will do.
    pub(super) fn open_endpoint(&mut self, place: &Place, address: &str) -> Option<String> {
        if address.contains(['?', '#']) {
            self.fault(place, "the address has a `?` or `#` in it", "write scheme, host and path alone");
            return None;
        }
        self.host(place, address, NO_ADDRESS).map(|_| address.to_owned())
    }

    /// The host of an address; a fault when there is none, or a password.
    fn host<'t>(&mut self, place: &Place, address: &'t str, without: (&str, &str)) -> Option<&'t str> {
        let rest = address.strip_prefix("https://").or_else(|| address.strip_prefix("http://"));
        let authority = rest.and_then(|rest| rest.split(['/', '?', '#']).next()).unwrap_or_default();
        if authority.contains('@') {
            let what = "a service's address must not hold a user or password";
            self.fault(place, what, "use the keys for credentials of this section");
            return None;
        }
        let host = host_of(authority);
        if host.is_empty() {
            self.fault(place, without.0, without.1);
            return None;
        }
        Some(host)
    }
}

/// Said of what is no address, and what to write instead: of a service that may be embedded, and of another one.
const NO_ENDPOINT: (&str, &str) =
    ("neither `embedded` nor an address with https://", "write `embedded` or `https://HOST`");
const NO_ADDRESS: (&str, &str) = ("not an address with http:// or https://", "write `https://HOST/PATH`");

/// What to write instead of an unknown zone.
pub(crate) fn zone_advice(name: &str) -> String {
    let known = TZ_VARIANTS.iter().map(|zone| zone.name());
    let mut advice = nearest(name, known).map_or(String::new(), |zone| format!("did you mean `{zone}`? "));
    let _ = write!(advice, "use a name of the IANA time zone database, such as `Asia/Shanghai`");
    advice
}

/// The host of `host:port` or `[v6]:port`.
pub(super) fn host_of(authority: &str) -> &str {
    match authority.strip_prefix('[') {
        Some(v6) => v6.split(']').next().unwrap_or_default(),
        None => authority.split(':').next().unwrap_or_default(),
    }
}

/// Whether a host name never leaves this machine.
pub(super) fn is_loopback(host: &str) -> bool {
    let is_loopback_address = host.parse::<std::net::IpAddr>().is_ok_and(|address| address.is_loopback());
    is_loopback_address || host.eq_ignore_ascii_case("localhost")
}

/// The file of an `sqlite:` address, relative ones taken from `base_dir`; none for other or in-memory databases.
pub(super) fn sqlite_file(url: &str, base_dir: &Path) -> Option<PathBuf> {
    let rest = url.strip_prefix("sqlite:")?;
    let path = rest.strip_prefix("//").unwrap_or(rest).split('?').next().unwrap_or_default();
    if path.is_empty() || path.starts_with(':') {
        return None;
    }
    Some(base_dir.join(path))
}
