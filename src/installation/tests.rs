use super::work_lock::WorkLock;

#[tokio::test]
async fn the_work_lock_is_held_by_one_until_it_is_dropped() {
    let folder = tempfile::tempdir().unwrap();
    assert!(!WorkLock::is_held(folder.path()).unwrap());
    let lock = WorkLock::take(folder.path()).await.unwrap();
    assert!(lock.is_some() && WorkLock::is_held(folder.path()).unwrap());
    assert!(WorkLock::take(folder.path()).await.unwrap().is_none());
    drop(lock);
    assert!(WorkLock::take(folder.path()).await.unwrap().is_some());
}
