//! Opening a repository, and creating one.

use std::{sync::Arc, time::Duration};

use bytesize::ByteSize;
use rustic_core::{
    ConfigOptions, Credentials, KeyOptions, OpenStatus, RepositoryBackends, RepositoryOptions,
    RusticError,
};

use super::{
    Context,
    backend::Backend,
    locks::{Lock, Use},
    seal::Seal,
    storage::Storage,
};
use crate::{Class, Failure, Initialised};

/// An open repository.
pub(super) struct Opened {
    pub(super) repository: rustic_core::Repository<OpenStatus>,
    pub(super) storage: Arc<Storage>,
    pub(super) backend: Arc<Backend>,
    pub(super) seal: Arc<Seal>,
}

impl Opened {
    /// Opens the repository.
    ///
    /// # Errors
    /// There is none, it is another one than expected, or the password is wrong.
    pub(super) fn open(context: &Context) -> Result<Self, Failure> {
        let storage = context.storage()?;
        if storage.get("config")?.is_none() {
            return Err(absent(&storage)?);
        }
        Self::open_existing(context, storage)
    }

    fn open_existing(context: &Context, storage: Arc<Storage>) -> Result<Self, Failure> {
        let location = storage.location().to_owned();
        if storage.list("keys")?.is_empty() {
            let message = format!(
                "the repository {location} has a configuration and no key: nobody can open it. Restore its keys, or use another location"
            );
            return Err(Failure::new(Class::Damaged, message));
        }
        let backend = Arc::new(Backend::new(Arc::clone(&storage)));
        let repository = engine(&backend)
            .and_then(|engine| engine.open(&credentials(context)))
            .map_err(|error| explain(&storage, &error))?;
        expect(context, &storage, &repository)?;
        let seal = Arc::new(Seal::new(&repository.key())?);
        Ok(Self {
            repository,
            storage,
            backend,
            seal,
        })
    }

    /// The repository's id.
    pub(super) fn id(&self) -> String {
        self.repository.config().id.to_string()
    }

    /// The repository once more, to be given an index.
    pub(super) fn again(&self) -> Result<rustic_core::Repository<OpenStatus>, Failure> {
        let key = Credentials::Masterkey(self.repository.key());
        engine(&self.backend)
            .and_then(|engine| engine.open(&key))
            .map_err(|error| explain(&self.storage, &error))
    }

    /// Takes the lock.
    pub(super) fn lock(&self, context: &Context, usage: Use) -> Result<Lock, Failure> {
        let patience = Duration::from_secs(context.request.limits.lock_seconds.into());
        Lock::take(&self.storage, &self.seal, usage, &context.caller, patience)
    }
}

/// Creates the repository where there is certainly none.
pub(super) fn initialise(context: &Context) -> Result<Initialised, Failure> {
    let storage = context.storage()?;
    let initialised = |opened: &Opened, created| Initialised {
        id: opened.id(),
        created,
    };
    if storage.get("config")?.is_some() {
        let opened = Opened::open_existing(context, storage)?;
        return Ok(initialised(&opened, false));
    }
    // A storage that has lost sight of the configuration for a moment still shows the rest.
    let failure = absent(&storage)?;
    if failure.class != Class::RepositoryAbsent || context.request.repository.expected_id.is_some()
    {
        return Err(failure);
    }
    let limits = &context.request.limits;
    let size = u64::from(limits.pack_mib.get()) << 20;
    let options = ConfigOptions::default()
        .set_version(2_u32)
        .set_compression(i32::from(limits.compression))
        .set_treepack_size(bytesize(size.min(4 << 20)))
        .set_treepack_growfactor(0_u32)
        .set_datapack_size(bytesize(size))
        .set_datapack_growfactor(0_u32);
    let backend = Arc::new(Backend::for_creation(Arc::clone(&storage)));
    engine(&backend)
        .and_then(|engine| engine.init(&credentials(context), &KeyOptions::default(), &options))
        .map_err(|error| explain(&storage, &error))?;
    // As everybody else will, from what was written.
    let opened = Opened::open_existing(context, storage)?;
    Ok(initialised(&opened, true))
}

/// Why there is no configuration: there is nothing at all, or the rest of a repository.
fn absent(storage: &Storage) -> Result<Failure, Failure> {
    let location = storage.location();
    let found = storage.list("")?;
    Ok(match found.first() {
        None => Failure::new(
            Class::RepositoryAbsent,
            format!("there is no repository in {location}: is it the right location?"),
        ),
        Some((name, _)) => Failure::new(
            Class::Occupied,
            format!(
                "{location} has no repository's configuration, but it is not empty (it has {name:?}): either the storage hides the file \"config\" now, or the location is in use for something else. Nothing is created there"
            ),
        ),
    })
}

fn expect(
    context: &Context,
    storage: &Storage,
    repository: &rustic_core::Repository<OpenStatus>,
) -> Result<(), Failure> {
    let found = repository.config().id.to_string();
    match &context.request.repository.expected_id {
        Some(expected) if *expected != found => Err(Failure::new(
            Class::Occupied,
            format!(
                "the repository in {} is another one: it has the id {found}, and {expected} is expected",
                storage.location()
            ),
        )),
        _ => Ok(()),
    }
}

fn engine(backend: &Arc<Backend>) -> Result<rustic_core::Repository<()>, Box<RusticError>> {
    // A cache would need room and care on each worker, and saves little in these operations.
    let options = RepositoryOptions::default().no_cache(true);
    let backends = RepositoryBackends::new(Arc::clone(backend) as _, None);
    rustic_core::Repository::new(&options, &backends)
}

fn credentials(context: &Context) -> Credentials {
    Credentials::password(context.request.repository.password.reveal())
}

fn bytesize(size: u64) -> Option<ByteSize> {
    Some(ByteSize(size))
}

/// The failure behind an error of the engine.
pub(super) fn explain(storage: &Storage, error: &RusticError) -> Failure {
    let location = storage.location();
    if error.is_incorrect_password() {
        return Failure::new(
            Class::WrongPassword,
            format!("the password is wrong for the repository {location}: no key has it"),
        );
    }
    let mut source = std::error::Error::source(error);
    while let Some(cause) = source {
        if let Some(failure) = cause.downcast_ref::<Failure>() {
            return failure.clone();
        }
        source = cause.source();
    }
    if let Some(fault) = storage.last_fault() {
        return fault;
    }
    let words = error.display_log();
    let words: Vec<&str> = words.split_whitespace().collect();
    let detail: String = words.join(" ").chars().take(600).collect();
    Failure::new(
        Class::Damaged,
        format!("the repository {location} cannot be used: {detail}"),
    )
}
