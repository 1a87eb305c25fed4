//! Logging: events on standard error, as text for a terminal and as JSON otherwise on request.
//!
//! Never logged: values of rows, ids of subjects, row keys, passwords, tokens, request bodies. The embedded object store
//! logs whole requests at debug level, so it is capped at warnings whatever the filter says. That a statement took more than a second
//! is no warning here: reading a whole table is what snapshots and records of the state do.

use tracing_subscriber::EnvFilter;

/// Starts logging. `level` is the configured least severe level; `WANGCHUAN_LOG` overrides it (tracing filter syntax) and
/// `WANGCHUAN_LOG_FORMAT=json` makes it JSON. Does nothing when logging runs already.
pub fn start(level: &str) {
    let text = std::env::var("WANGCHUAN_LOG").unwrap_or_else(|_| level.to_owned());
    let filter = EnvFilter::try_new(format!(
        "{text},s3s=off,s3s_fs=warn,aws_smithy_runtime=warn,aws_sdk_s3=warn,hyper=warn,sqlx=warn,sqlx::query=error"
    ))
    .unwrap_or_else(|_| EnvFilter::new("warn"));
    let builder = tracing_subscriber::fmt().with_env_filter(filter).with_writer(std::io::stderr);
    let _ = if std::env::var("WANGCHUAN_LOG_FORMAT").as_deref() == Ok("json") {
        builder.json().try_init()
    } else {
        builder.try_init()
    };
}
