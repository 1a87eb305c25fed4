//! Whether what is said to a server stays unread on its way: told from its address as the drivers themselves read it.

use std::net::IpAddr;
use std::str::FromStr;

use sqlx::mysql::{MySqlConnectOptions, MySqlSslMode};
use sqlx::postgres::{PgConnectOptions, PgSslMode};
use tracing::subscriber::NoSubscriber;

use crate::policy::registry::SecretText;

/// How an address carries what is said.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Transport {
    /// It never leaves this host: a file, a socket, a loopback address.
    Local,
    /// With TLS or not at all.
    Encrypted,
    /// To another host, in clear if the server has no TLS or somebody between says so.
    MayBeClear,
}

/// How an address carries what is said; `None` when the driver cannot read it.
///
/// Where the address names no host or mode, PostgreSQL's variables of the environment (`PGHOST`, `PGSSLMODE`) count, as they
/// do when it is connected to.
#[must_use]
pub fn transport(url: &SecretText) -> Option<Transport> {
    let text = url.dangerous_text();
    let (scheme, rest) = text.split_once(':')?;
    let (is_local, is_encrypted) = match scheme {
        "sqlite" => return Some(Transport::Local),
        "postgres" | "postgresql" => {
            // The driver logs what it does not know with its value; that is for the time of connecting.
            let read = || PgConnectOptions::from_str(text).ok();
            let options = tracing::subscriber::with_default(NoSubscriber::default(), read)?;
            let is_encrypted =
                matches!(options.get_ssl_mode(), PgSslMode::Require | PgSslMode::VerifyCa | PgSslMode::VerifyFull);
            (options.get_socket().is_some() || is_this_host(options.get_host()), is_encrypted)
        }
        "mysql" | "mariadb" => {
            let renamed = SecretText::new(format!("mysql:{rest}"));
            let options = MySqlConnectOptions::from_str(renamed.dangerous_text()).ok()?;
            let is_encrypted = matches!(
                options.get_ssl_mode(),
                MySqlSslMode::Required | MySqlSslMode::VerifyCa | MySqlSslMode::VerifyIdentity
            );
            (options.get_socket().is_some() || is_this_host(options.get_host()), is_encrypted)
        }
        _ => return None,
    };
    Some(match (is_local, is_encrypted) {
        (true, _) => Transport::Local,
        (false, true) => Transport::Encrypted,
        (false, false) => Transport::MayBeClear,
    })
}

/// Whether a host as a driver names it is this one. A path is that of a socket.
fn is_this_host(host: &str) -> bool {
    let address = host.trim_start_matches('[').trim_end_matches(']').parse::<IpAddr>();
    host.starts_with('/')
        || host.eq_ignore_ascii_case("localhost")
        || address.is_ok_and(|address| address.is_loopback())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_tls_or_this_host_keeps_what_is_said_unread() {
        use Transport::{Encrypted, Local, MayBeClear};
        let cases = [
            ("sqlite:///data/shop.db", Some(Local)),
            ("postgres://u@localhost/d", Some(Local)),
            ("postgres://u@LocalHost:5433/d", Some(Local)),
            ("postgres://u@127.0.0.1/d", Some(Local)),
            ("postgresql://u@127.8.9.1:5432/d?sslmode=disable", Some(Local)),
            ("postgres://u@[::1]:5432/d", Some(Local)),
            ("postgres://u@%2Frun%2Fpostgresql/d", Some(Local)),
            ("postgres:///d?host=/run/postgresql", Some(Local)),
            ("postgres://u@db/d", Some(MayBeClear)),
            ("postgres://u@10.0.0.7/d", Some(MayBeClear)),
            ("postgres://u@[fe80::1]/d", Some(MayBeClear)),
            ("postgres://u@0.0.0.0/d", Some(MayBeClear)),
            ("postgres://u@localhost.example.com/d", Some(MayBeClear)),
            ("postgres://u@db/d?sslmode=disable", Some(MayBeClear)),
            ("postgres://u@db/d?sslmode=allow", Some(MayBeClear)),
            ("postgres://u@db/d?sslmode=prefer", Some(MayBeClear)),
            ("postgres://u@db/d?SSLMODE=require", Some(MayBeClear)),
            ("postgres://u@db/d?sslmode=require", Some(Encrypted)),
            ("postgres://u@db/d?ssl-mode=VERIFY-CA", Some(Encrypted)),
            ("postgres://u@db/d?sslmode=verify-full", Some(Encrypted)),
            // What comes last counts, and the host may stand in the query.
            ("postgres://u@db/d?sslmode=require&sslmode=disable", Some(MayBeClear)),
            ("postgres://u@localhost/d?host=db", Some(MayBeClear)),
            ("postgres://u@localhost/d?hostaddr=10.0.0.7", Some(MayBeClear)),
            ("postgres://u@db/d?sslmode=perhaps", None),
            ("mysql://u@localhost/d", Some(Local)),
            ("mariadb://u@127.0.0.1:3306/d", Some(Local)),
            ("mariadb://u@[::1]/d?ssl-mode=DISABLED", Some(Local)),
            ("mysql://u@db/d?socket=/run/mysqld.sock", Some(Local)),
            ("mysql://u@db/d", Some(MayBeClear)),
            ("mariadb://u@db/d?ssl-mode=PREFERRED", Some(MayBeClear)),
            ("mariadb://u@db/d?ssl-mode=DISABLED", Some(MayBeClear)),
            ("mariadb://u@db/d?ssl-mode=REQUIRED", Some(Encrypted)),
            ("mariadb://u@db/d?sslmode=verify_ca", Some(Encrypted)),
            ("mysql://u@db/d?ssl-mode=VERIFY_IDENTITY", Some(Encrypted)),
            ("oracle://u@db/d", None),
            ("nothing", None),
        ];
        for (url, expected) in cases {
            assert_eq!(transport(&SecretText::new(url.to_owned())), expected, "{url}");
        }
    }
}
