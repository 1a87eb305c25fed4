//! Object stores for tests: one in memory, and a wrapper that makes another one fail as networks do.

use std::collections::BTreeMap;
use std::sync::{Mutex, MutexGuard, PoisonError};

use async_trait::async_trait;

use super::object_store::{ListedObject, ObjectStore, PutOutcome, RepositoryError, Result, corrupt};

/// Objects in memory.
#[derive(Default)]
pub struct MemoryStore {
    objects: Mutex<BTreeMap<String, Vec<u8>>>,
}

impl MemoryStore {
    fn objects(&self) -> MutexGuard<'_, BTreeMap<String, Vec<u8>>> {
        self.objects.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Changes (or, with `None`, removes) an object as nobody should.
    pub fn tamper(&self, name: &str, change: impl FnOnce(Vec<u8>) -> Option<Vec<u8>>) {
        let mut objects = self.objects();
        if let Some(bytes) = objects.remove(name).and_then(change) {
            objects.insert(name.to_owned(), bytes);
        }
    }
}

#[async_trait]
impl ObjectStore for MemoryStore {
    async fn put_if_absent(&self, name: &str, bytes: Vec<u8>) -> Result<PutOutcome> {
        let mut objects = self.objects();
        match objects.get(name) {
            Some(there) if *there == bytes => Ok(PutOutcome::AlreadyThere),
            Some(_) => Err(RepositoryError::Exists { name: name.to_owned() }),
            None => {
                objects.insert(name.to_owned(), bytes);
                Ok(PutOutcome::Created)
            }
        }
    }

    async fn get(&self, name: &str, limit: usize) -> Result<Vec<u8>> {
        match self.objects().get(name) {
            None => Err(RepositoryError::NotFound { name: name.to_owned() }),
            Some(bytes) if bytes.len() > limit => Err(corrupt(name, "longer than expected")),
            Some(bytes) => Ok(bytes.clone()),
        }
    }

    async fn get_range(&self, name: &str, offset: u64, length: u32) -> Result<Vec<u8>> {
        let objects = self.objects();
        let bytes = objects.get(name).ok_or(RepositoryError::NotFound { name: name.to_owned() })?;
        let start = usize::try_from(offset).unwrap_or(usize::MAX);
        let range = start..start.saturating_add(length as usize);
        bytes.get(range).map(<[u8]>::to_vec).ok_or_else(|| corrupt(name, "shorter than expected"))
    }

    async fn list(&self, prefix: &str) -> Result<Vec<ListedObject>> {
        let objects = self.objects();
        let listed =
            |(name, bytes): (&String, &Vec<u8>)| ListedObject { name: name.clone(), bytes: bytes.len() as u64 };
        Ok(objects.iter().filter(|(name, _)| name.starts_with(prefix)).map(listed).collect())
    }

    async fn head(&self, name: &str) -> Result<Option<u64>> {
        Ok(self.objects().get(name).map(|bytes| bytes.len() as u64))
    }
}

/// How a call is made to fail.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fault {
    /// The call does not reach the server.
    Lost,
    /// The server carries the call out, but its answer does not arrive.
    AnswerLost,
    /// The server refuses.
    Denied,
}

/// An object store whose calls fail as planned: `plan` is asked for each call by its number from 0.
pub struct FaultyStore<S> {
    inner: S,
    plan: Box<dyn Fn(u64) -> Option<Fault> + Send + Sync>,
    calls: Mutex<u64>,
}

impl<S: ObjectStore> FaultyStore<S> {
    /// Wraps `inner`.
    pub fn new(inner: S, plan: impl Fn(u64) -> Option<Fault> + Send + Sync + 'static) -> Self {
        Self { inner, plan: Box::new(plan), calls: Mutex::new(0) }
    }

    /// The wrapped store.
    pub fn inner(&self) -> &S {
        &self.inner
    }

    /// How many calls were made.
    pub fn calls(&self) -> u64 {
        *self.calls.lock().unwrap_or_else(PoisonError::into_inner)
    }

    async fn call<T: Send>(&self, operation: &'static str, call: impl Future<Output = Result<T>> + Send) -> Result<T> {
        let number = {
            let mut calls = self.calls.lock().unwrap_or_else(PoisonError::into_inner);
            *calls += 1;
            *calls - 1
        };
        let unreachable = || RepositoryError::Unreachable { operation, detail: "planned fault".to_owned() };
        match (self.plan)(number) {
            None => call.await,
            Some(Fault::Lost) => Err(unreachable()),
            Some(Fault::AnswerLost) => {
                call.await?;
                Err(unreachable())
            }
            Some(Fault::Denied) => Err(RepositoryError::Denied { operation, code: "AccessDenied".to_owned() }),
        }
    }
}

#[async_trait]
impl<S: ObjectStore> ObjectStore for FaultyStore<S> {
    async fn put_if_absent(&self, name: &str, bytes: Vec<u8>) -> Result<PutOutcome> {
        self.call("put", self.inner.put_if_absent(name, bytes)).await
    }

    async fn get(&self, name: &str, limit: usize) -> Result<Vec<u8>> {
        self.call("get", self.inner.get(name, limit)).await
    }

    async fn get_range(&self, name: &str, offset: u64, length: u32) -> Result<Vec<u8>> {
        self.call("get range", self.inner.get_range(name, offset, length)).await
    }

    async fn list(&self, prefix: &str) -> Result<Vec<ListedObject>> {
        self.call("list", self.inner.list(prefix)).await
    }

    async fn head(&self, name: &str) -> Result<Option<u64>> {
        self.call("head", self.inner.head(name)).await
    }
}
