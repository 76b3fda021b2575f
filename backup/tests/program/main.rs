//! The program against repositories that restic reads and writes, storages that fail, and callers that vanish.

mod bucket;
mod opening;
mod restic;
mod retention;
mod storage;
mod streams;
mod support;
mod trees;
