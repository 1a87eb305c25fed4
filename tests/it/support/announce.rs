//! Suites that need a server or much time, and the variables by which `tests/run` switches them on.

use std::io::Write;

/// A private PostgreSQL: `postgres://user@host:port/database` of a superuser.
pub const POSTGRES: &str = "WANGCHUAN_TEST_POSTGRES";
/// A private MariaDB: `mysql://root@host:port/`.
pub const MARIADB: &str = "WANGCHUAN_TEST_MARIADB";
/// The `bao` program of OpenBao; tests start their own servers with it.
pub const OPENBAO: &str = "WANGCHUAN_TEST_OPENBAO";
/// The `moto_server` program of moto, which imitates services of AWS; tests start their own servers with it.
pub const MOTO: &str = "WANGCHUAN_TEST_MOTO";
/// The `radosgw` program of Ceph; tests start their own servers with it and its siblings.
pub const RGW: &str = "WANGCHUAN_TEST_RGW";
/// The library of SoftHSM, with `SOFTHSM2_CONF` naming a private folder of tokens.
pub const SOFTHSM: &str = "WANGCHUAN_TEST_SOFTHSM";
/// Set to 1 for suites that take minutes.
pub const LONG: &str = "WANGCHUAN_TEST_LONG";

/// The suites that depend on a variable, with what they are.
pub const SUITES: [(&str, &str); 7] = [
    (POSTGRES, "PostgreSQL stores (tests/run starts a private server)"),
    (MARIADB, "MariaDB stores (tests/run starts a private server)"),
    (OPENBAO, "root slot in OpenBao (tests/run starts private servers)"),
    (MOTO, "root slot in AWS KMS, and bucket, on moto (tests/run starts private servers)"),
    (RGW, "bucket with versions and Object Lock on Ceph RGW (tests/run starts private servers)"),
    (SOFTHSM, "root slot in a PKCS#11 token (tests/run makes tokens of SoftHSM)"),
    (LONG, "long suites (tests/run --long)"),
];

/// The value of a suite's variable; empty counts as unset.
pub fn switched_on(variable: &str) -> Option<String> {
    std::env::var(variable).ok().filter(|value| !value.is_empty())
}

/// Tells on standard error that a suite does not run here. The test harness captures the print macros, but not a handle.
pub fn announce_not_run(suite: &str) {
    let _ = writeln!(std::io::stderr().lock(), "not run here: {suite}");
}
