//! The policies that are shipped, in force on a server: what the agent does works with them, and removing does not.

use serde_json::{Value, json};
use wangchuan::backup::object_store::{ObjectStore as _, RepositoryError};
use wangchuan::backup::removal::{ObjectRemover as _, Removal};
use wangchuan::backup::repository::S3Repository;
use wangchuan::backup::repository::abilities::Ability;
use wangchuan::random::SystemRandom;

use super::{now, object};
use crate::support::rgw::{PRUNER, Rgw, WRITER};

/// The statements of a shipped policy for a bucket and a user.
fn statements(text: &str, bucket: &str, user: &str) -> Vec<Value> {
    let policy: Value = serde_json::from_str(&text.replace("BUCKET", bucket)).unwrap();
    let statements = policy["Statement"].as_array().unwrap().clone();
    let for_user = |mut statement: Value| {
        statement["Principal"] = json!({"AWS": [format!("arn:aws:iam:::user/{user}")]});
        // As part of a bucket's policy they need no names of their own.
        statement["Sid"] = format!("{user}{}", statement["Sid"].as_str().unwrap()).into();
        statement
    };
    statements.into_iter().map(for_user).collect()
}

/// Also where no server is at hand.
#[test]
fn who_stores_may_not_remove_and_who_removes_may_not_store() {
    let allowed = |text: &str| {
        let policy: Value = serde_json::from_str(text).unwrap();
        let statements = policy["Statement"].as_array().unwrap().clone();
        let of_allow = statements.into_iter().filter(|statement| statement["Effect"] == "Allow");
        of_allow.map(|statement| statement["Action"].to_string()).collect::<String>()
    };
    let stores = allowed(include_str!("../../../config/aws-s3-policy.json"));
    assert!(!stores.contains("Delete") && !stores.contains('*') && stores.contains("s3:PutObject\""), "{stores}");
    let removes = allowed(include_str!("../../../config/aws-s3-prune-policy.json"));
    assert!(
        !removes.contains("Put") && !removes.contains('*') && removes.contains("s3:DeleteObjectVersion"),
        "{removes}"
    );
}

pub async fn the_shipped_policies_are_enough_and_no_more(rgw: &Rgw) {
    let bucket = "governed";
    rgw.make_bucket(bucket, true).await;
    let mut all = statements(include_str!("../../../config/aws-s3-policy.json"), bucket, "writer");
    all.extend(statements(include_str!("../../../config/aws-s3-prune-policy.json"), bucket, "pruner"));
    let policy = json!({"Version": "2012-10-17", "Statement": all}).to_string();
    rgw.owner().put_bucket_policy().bucket(bucket).policy(policy).send().await.unwrap();

    let writer = S3Repository::connect(&rgw.settings(bucket, WRITER)).await.unwrap();
    let pruner = S3Repository::connect(&rgw.settings(bucket, PRUNER)).await.unwrap();
    writer.check_bucket().await.unwrap();
    // Without the right to delete, nobody can show that a lock holds; with the other keys it shows.
    let alone = writer.prove_abilities(&writer, &SystemRandom, now()).await.unwrap();
    assert_eq!(alone.versions, Ability::Proved);
    assert!(matches!(&alone.object_lock, Ability::Unknown(why) if why.contains("may delete nothing")), "{alone:?}");
    let both = writer.prove_abilities(&pruner, &SystemRandom, now()).await.unwrap();
    assert_eq!(both.object_lock, Ability::Proved);

    let (name, bytes) = object(3, 1000);
    writer.put_if_absent(&name, bytes.clone()).await.unwrap();
    assert!(writer.get(&name, 1000).await.unwrap() == bytes);
    assert!(!writer.list("packs/").await.unwrap().is_empty());
    let version = writer.versions(&name).await.unwrap().remove(0);
    let refused = writer.remove(&name, &version).await;
    assert!(matches!(refused, Err(RepositoryError::Denied { .. })), "{refused:?}");
    // Who may remove may not store, and of the rest of the bucket nothing.
    let stored = pruner.put_if_absent("packs/other", b"other".to_vec()).await;
    assert!(matches!(stored, Err(RepositoryError::Denied { .. })), "{stored:?}");
    writer.put_if_absent("manifests/a", b"a".to_vec()).await.unwrap();
    let manifest = writer.versions("manifests/a").await.unwrap().remove(0);
    let refused = pruner.remove("manifests/a", &manifest).await;
    assert!(matches!(refused, Err(RepositoryError::Denied { .. })), "{refused:?}");
    assert_eq!(pruner.remove(&name, &version).await, Ok(Removal::Gone));
    assert!(writer.versions(&name).await.unwrap().is_empty());
}
