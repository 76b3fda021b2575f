//! A repository in a bucket.

use std::{collections::VecDeque, fs, sync::Mutex, time::Duration};

use bytes::Bytes;
use futures_util::TryStreamExt;
use object_store::{
    BackoffConfig, Certificate, ClientOptions, Error, ObjectStore, ObjectStoreExt, PutMode,
    PutOptions, PutPayload, RetryConfig,
    aws::{AmazonS3, AmazonS3Builder, S3ConditionalPut},
    path::Path,
};
use tokio::runtime::Runtime;

use super::super::control::lock;
use crate::{Failure, Limits, S3};

/// How much is read at once where a part of a file is asked for: neighbours are asked for next.
const WINDOW_BYTES: u64 = 4 << 20;

/// Parts of files that are kept.
const WINDOWS: usize = 4;

pub(super) struct Bucket {
    store: AmazonS3,
    prefix: Path,
    runtime: Runtime,
    windows: Mutex<VecDeque<Window>>,
}

/// A part of a file. Files with data never change.
struct Window {
    name: String,
    offset: u64,
    content: Bytes,
}

impl std::fmt::Debug for Bucket {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Bucket({})", self.prefix)
    }
}

impl Bucket {
    pub(super) fn new(location: &str, s3: Option<&S3>, limits: &Limits) -> Result<Self, Failure> {
        let default = S3::default();
        let s3 = s3.unwrap_or(&default);
        let (bucket, prefix) = location.split_once('/').unwrap_or((location, ""));
        if bucket.is_empty() {
            return Err(Failure::bad_request(format!(
                "the location s3://{location} has no bucket: it is s3://bucket/prefix"
            )));
        }
        let invalid = |error: &dyn std::fmt::Display| {
            Failure::bad_request(format!("the location s3://{location}: {error}"))
        };
        let prefix = Path::parse(prefix).map_err(|error| invalid(&error))?;
        // There may be one already, of this process's tests.
        let _ = rustls::crypto::ring::default_provider().install_default();
        let seconds = |seconds: u32| Duration::from_secs(seconds.into());
        let plain = s3
            .endpoint
            .as_ref()
            .is_some_and(|url| url.starts_with("http://"));
        let mut client = ClientOptions::new()
            .with_timeout(seconds(limits.request_seconds.get()))
            .with_connect_timeout(seconds(limits.request_seconds.get().min(30)))
            .with_allow_http(plain);
        if let Some(file) = &s3.ca_file {
            let unusable = |error: &dyn std::fmt::Display| {
                let file = file.display();
                Failure::bad_request(format!("cannot use the certificates in {file}: {error}"))
            };
            let pem = fs::read(file).map_err(|error| unusable(&error))?;
            let all = Certificate::from_pem_bundle(&pem).map_err(|error| unusable(&error))?;
            if all.is_empty() {
                return Err(unusable(&"there are none"));
            }
            for certificate in all {
                client = client.with_root_certificate(certificate);
            }
        }
        let mut builder = AmazonS3Builder::new()
            .with_bucket_name(bucket)
            .with_region(&s3.region)
            .with_virtual_hosted_style_request(!s3.path_style)
            .with_client_options(client)
            .with_conditional_put(S3ConditionalPut::ETagMatch)
            .with_retry(RetryConfig {
                backoff: BackoffConfig::default(),
                max_retries: limits.retries as usize,
                retry_timeout: seconds(limits.retry_seconds),
            });
        if let Some(endpoint) = &s3.endpoint {
            builder = builder.with_endpoint(endpoint);
        }
        builder = match (&s3.access_key_id, &s3.secret_access_key) {
            (Some(id), Some(key)) => builder
                .with_access_key_id(id)
                .with_secret_access_key(key.reveal()),
            (None, None) => builder.with_skip_signature(true),
            _ => {
                return Err(invalid(
                    &"only one of access_key_id and secret_access_key is given",
                ));
            }
        };
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(1)
            .enable_all()
            .build()
            .map_err(Failure::internal)?;
        Ok(Self {
            store: builder.build().map_err(|error| invalid(&error))?,
            prefix,
            runtime,
            windows: Mutex::default(),
        })
    }

    fn path(&self, name: &str) -> Path {
        name.split('/')
            .filter(|part| !part.is_empty())
            .fold(self.prefix.clone(), |path, part| path.join(part))
    }

    pub(super) fn get(&self, name: &str) -> Result<Option<Bytes>, String> {
        let path = self.path(name);
        let get = async { self.store.get(&path).await?.bytes().await };
        match self.runtime.block_on(get) {
            Ok(content) => Ok(Some(content)),
            Err(Error::NotFound { .. }) => Ok(None),
            Err(error) => Err(text(&error)),
        }
    }

    pub(super) fn get_range(&self, name: &str, offset: u32, length: u32) -> Result<Bytes, String> {
        let (offset, length) = (u64::from(offset), u64::from(length));
        let within = |window: &Window| {
            let start = offset.checked_sub(window.offset)?;
            let (start, end) = (start as usize, (start + length) as usize);
            (window.name == name && end <= window.content.len())
                .then(|| window.content.slice(start..end))
        };
        if let Some(content) = lock(&self.windows).iter().find_map(within) {
            return Ok(content);
        }
        // The storage cuts a range that goes beyond the end.
        let range = offset..offset + length.max(WINDOW_BYTES);
        let content = self
            .runtime
            .block_on(self.store.get_range(&self.path(name), range))
            .map_err(|error| text(&error))?;
        let window = Window {
            name: name.to_owned(),
            offset,
            content,
        };
        let found = within(&window).ok_or_else(|| {
            let has = window.content.len();
            format!("{length} bytes at {offset} are wanted, and there are {has}")
        });
        let mut windows = lock(&self.windows);
        windows.push_front(window);
        windows.truncate(WINDOWS);
        found
    }

    pub(super) fn put(&self, name: &str, content: &[Bytes]) -> Result<(), String> {
        let payload = PutPayload::from_iter(content.iter().cloned());
        let path = self.path(name);
        let put = self.store.put(&path, payload);
        let put = self.runtime.block_on(put);
        put.map(|_| ()).map_err(|error| text(&error))
    }

    pub(super) fn create(&self, name: &str, content: &Bytes) -> Result<bool, String> {
        let path = self.path(name);
        let payload = PutPayload::from(content.clone());
        let options = PutOptions::from(PutMode::Create);
        match self
            .runtime
            .block_on(self.store.put_opts(&path, payload, options))
        {
            Ok(_) => Ok(true),
            Err(Error::AlreadyExists { .. } | Error::Precondition { .. }) => Ok(false),
            // The server knows no conditions: the caller has made sure that there is nothing.
            Err(Error::NotImplemented { .. } | Error::NotSupported { .. }) => {
                self.put(name, std::slice::from_ref(content))?;
                Ok(true)
            }
            Err(error) => Err(text(&error)),
        }
    }

    pub(super) fn remove(&self, name: &str) -> Result<(), String> {
        match self.runtime.block_on(self.store.delete(&self.path(name))) {
            Ok(()) | Err(Error::NotFound { .. }) => Ok(()),
            Err(error) => Err(text(&error)),
        }
    }

    pub(super) fn list(&self, directory: &str) -> Result<Vec<(String, u64)>, String> {
        let path = self.path(directory);
        let list = self.store.list(Some(&path)).map_ok(|object| {
            let name = object.location.filename().unwrap_or_default();
            (name.to_owned(), object.size)
        });
        let list = self.runtime.block_on(list.try_collect());
        list.map_err(|error| text(&error))
    }
}

/// The error with its causes, in one line. The sources of the storage's errors have the server's answer, and no key.
fn text(error: &Error) -> String {
    let mut line = error.to_string();
    let mut source = std::error::Error::source(error);
    while let Some(error) = source {
        let more = error.to_string();
        if !line.contains(&more) {
            line.push_str(": ");
            line.push_str(&more);
        }
        source = error.source();
    }
    let words: Vec<&str> = line.split_whitespace().collect();
    words.join(" ").chars().take(600).collect()
}
