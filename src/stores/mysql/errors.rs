//! From MariaDB's errors to the port's, without values.
//!
//! Only errors whose messages hold names alone are passed on; "Duplicate entry" and the conversion errors quote the
//! value.

use sqlx::mysql::MySqlDatabaseError;

use crate::stores::StoreError;
use crate::stores::session::transport_error;

/// The port's error for a driver error. Numbers: MariaDB documentation, "MariaDB error codes".
pub(super) fn error_of(store: &str, error: &sqlx::Error) -> StoreError {
    let sqlx::Error::Database(database) = error else { return transport_error(store, error) };
    let store = store.to_owned();
    let message = database.message().to_owned();
    let Some(database) = database.try_downcast_ref::<MySqlDatabaseError>() else {
        return StoreError::Failed { store, what: "the database reported an unknown error".to_owned() };
    };
    let number = database.number();
    match number {
        1045 | 1698 | 1862 | 1820 | 4151 => StoreError::Login { store, detail: message },
        1053 | 1077 | 1079 | 1927 | 4031 => {
            StoreError::Unreachable { store, detail: "the server ended the connection".to_owned() }
        }
        1040 | 1203 | 1226 => StoreError::Busy { store, what: "the server has no free connection".to_owned() },
        1205 | 3572 => StoreError::Busy { store, what: "another transaction holds a lock".to_owned() },
        1213 | 1020 => StoreError::Busy { store, what: "another transaction was in the way (deadlock)".to_owned() },
        1317 | 1969 | 3024 => {
            StoreError::Busy { store, what: "a statement ran longer than its limit, or was cancelled".to_owned() }
        }
        1412 => StoreError::Busy { store, what: "the table was altered meanwhile".to_owned() },
        1062 | 1586 => {
            let key = message.rsplit_once(" for key ").map_or("", |(_, key)| key);
            StoreError::Constraint { store, what: format!("a row with the same unique key {key} exists") }
        }
        1048 | 1216 | 1217 | 1364 | 1451 | 1452 | 3819 | 4025 => {
            StoreError::Constraint { store, what: without_row(message) }
        }
        1644 => StoreError::Constraint { store, what: "a trigger refused the statement (error 1644)".to_owned() },
        1044 | 1049 | 1054 | 1142 | 1143 | 1146 | 1227 | 1290 | 1370 | 1792 | 1836 => {
            StoreError::Refused { store, what: message }
        }
        1264 | 1265 | 1292 | 1365 | 1366 | 1367 | 1406 | 1411 | 1525 | 1690 | 1916 | 3140 | 4078 => {
            StoreError::Refused { store, what: format!("a value does not fit its column (error {number})") }
        }
        _ => StoreError::Failed { store, what: format!("the database reported error {number}") },
    }
}

/// Some versions end these messages with the row in question.
fn without_row(message: String) -> String {
    match message.find(" with value") {
        Some(end) => message[..end].to_owned(),
        None => message,
    }
}
