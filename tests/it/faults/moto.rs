//! The protocol on moto, which somebody else wrote from AWS's own model of it. It enforces less than AWS, so it shows only that every
//! request that stores and reads is understood, and its answers are.

use wangchuan::backup::codec::Sha256;
use wangchuan::backup::object_store::{ObjectStore as _, PutOutcome, RepositoryError};
use wangchuan::backup::repository::abilities::Ability;
use wangchuan::backup::repository::{Patience, RepositoryCredentials, RepositorySettings, S3Repository};
use wangchuan::policy::registry::SecretText;
use wangchuan::random::SystemRandom;

use crate::support::moto::Moto;

#[tokio::test]
async fn every_call_has_the_shape_of_the_protocol() {
    let Some(moto) = Moto::start().await else { return };
    let keys = aws_sdk_s3::config::Credentials::new("AKIDTEST", "secret", None, None, "test");
    let config = aws_sdk_s3::Config::builder()
        .behavior_version(aws_sdk_s3::config::BehaviorVersion::latest())
        .region(aws_sdk_s3::config::Region::new("us-east-1"))
        .endpoint_url(moto.endpoint())
        .force_path_style(true)
        .credentials_provider(keys)
        .build();
    let owner = aws_sdk_s3::Client::from_conf(config);
    owner.create_bucket().bucket("backups").send().await.unwrap();
    let repository = S3Repository::connect(&RepositorySettings {
        endpoint: Some(moto.endpoint()),
        region: "us-east-1".to_owned(),
        bucket: "backups".to_owned(),
        prefix: "agent".to_owned(),
        path_style: true,
        credentials: RepositoryCredentials::Keys {
            access_key: "AKIDTEST".to_owned(),
            secret_key: SecretText::new("secret".to_owned()),
            session_token: None,
        },
        ca_pem: None,
        patience: Patience::default(),
        lock: None,
    })
    .await
    .unwrap();
    repository.check_bucket().await.unwrap();
    let now = wangchuan::clock::Clock::now(&wangchuan::clock::SystemClock);
    let abilities = repository.prove_abilities(&repository, &SystemRandom, now).await.unwrap();
    assert_eq!(abilities.conditional_put, Ability::Proved);
    assert!(matches!(abilities.checksum_enforced, Ability::Missing(_)), "{abilities:?}");

    let bytes = vec![7; 100_000];
    let name = format!("packs/{}", Sha256::of(&bytes));
    assert_eq!(repository.put_if_absent(&name, bytes.clone()).await, Ok(PutOutcome::Created));
    assert_eq!(repository.put_if_absent(&name, bytes.clone()).await, Ok(PutOutcome::AlreadyThere));
    let other = repository.put_if_absent(&name, b"other".to_vec()).await;
    assert_eq!(other, Err(RepositoryError::Exists { name: name.clone() }));
    assert!(repository.get(&name, 100_000).await.unwrap() == bytes);
    assert_eq!(repository.get_range(&name, 99_990, 10).await.unwrap(), vec![7; 10]);
    let listed = repository.list("packs/").await.unwrap();
    assert_eq!(listed.iter().map(|object| (&object.name, object.bytes)).collect::<Vec<_>>(), [(&name, 100_000)]);
}
