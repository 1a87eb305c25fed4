use super::*;

fn settings(root: &Path) -> EmbeddedSettings {
    EmbeddedSettings {
        root: root.to_owned(),
        port: 0,
        access_key: "embedded".to_owned(),
        secret_key: SecretText::new("a secret of this test".to_owned()),
        bucket: "backups".to_owned(),
    }
}

#[tokio::test]
async fn it_starts_stops_and_starts_again_on_the_same_folder() {
    let folder = tempfile::tempdir().unwrap();
    let first = EmbeddedServer::start(settings(folder.path())).await.unwrap();
    assert!(first.address().ip().is_loopback());
    assert_eq!(first.endpoint(), format!("http://127.0.0.1:{}", first.address().port()));
    let second = EmbeddedServer::start(settings(folder.path())).await;
    assert!(matches!(second, Err(EmbeddedError::InUse { .. })));
    let address = first.address();
    first.stop().await;
    assert!(TcpStream::connect(address).await.is_err());
    EmbeddedServer::start(settings(folder.path())).await.unwrap().stop().await;
}

#[tokio::test]
async fn an_idle_connection_does_not_hold_up_the_stop() {
    let folder = tempfile::tempdir().unwrap();
    let server = EmbeddedServer::start(settings(folder.path())).await.unwrap();
    let _idle = TcpStream::connect(server.address()).await.unwrap();
    tokio::time::timeout(STOP_WITHIN * 2, server.stop()).await.unwrap();
}

#[tokio::test]
async fn a_taken_port_and_a_bad_bucket_name_are_named() {
    let folder = tempfile::tempdir().unwrap();
    let server = EmbeddedServer::start(settings(folder.path())).await.unwrap();
    let other = tempfile::tempdir().unwrap();
    let same_port = EmbeddedSettings { port: server.address().port(), ..settings(other.path()) };
    assert!(matches!(EmbeddedServer::start(same_port).await, Err(EmbeddedError::Listen { .. })));
    for bucket in ["", "ab", "Upper", "a/b", "..", "-ab", "a b"] {
        let bad = EmbeddedSettings { bucket: bucket.to_owned(), ..settings(other.path()) };
        assert!(matches!(EmbeddedServer::start(bad).await, Err(EmbeddedError::BucketName(_))), "{bucket}");
    }
    server.stop().await;
}

#[cfg(unix)]
#[tokio::test]
async fn the_folder_is_private() {
    use std::os::unix::fs::PermissionsExt as _;
    let folder = tempfile::tempdir().unwrap();
    let root = folder.path().join("objects");
    let server = EmbeddedServer::start(settings(&root)).await.unwrap();
    let mode = std::fs::metadata(root.join("backups")).unwrap().permissions().mode();
    assert_eq!(mode & 0o777, 0o700);
    server.stop().await;
}
