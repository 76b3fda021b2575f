//! One tree, written as the repository's format has it.
//!
//! rustic_core records a file's size before it reads it, and restic believes the record: it restores a stream, whose size
//! nobody knew, as an empty file. So the tree of a stream is written once more, with the size.

use bytes::Bytes;
use jiff::Timestamp;
use rustic_core::{
    FileType, Id, TreeId,
    repofile::{Node, Tree},
};
use serde_json::json;

use super::{
    backend::name,
    seal::{Seal, id},
    storage::Storage,
};
use crate::Failure;

/// A tree in a pack's header.
const TREE: u8 = 1;

/// Stores a tree in a pack and an index of its own.
pub(super) fn save_tree(
    storage: &Storage,
    seal: &Seal,
    nodes: Vec<Node>,
) -> Result<TreeId, Failure> {
    let tree = Tree { nodes };
    let (content, tree_id) = tree
        .serialize()
        .map_err(|error| Failure::internal(format!("a tree cannot be written: {error}")))?;
    let mut pack = seal.seal(&content)?;
    let length = number(pack.len())?;
    let mut header = vec![TREE];
    header.extend_from_slice(&length.to_le_bytes());
    header.extend_from_slice(&bytes_of(*tree_id)?);
    let header = seal.seal(&header)?;
    pack.extend_from_slice(&header);
    pack.extend_from_slice(&number(header.len())?.to_le_bytes());
    let pack_id = id(&pack);
    storage.put(&name(FileType::Pack, &pack_id), vec![pack.into()])?;

    let index = json!({"packs": [{
        "id": pack_id,
        "blobs": [{"id": tree_id, "type": "tree", "offset": 0, "length": length}],
        "time": Timestamp::now().to_string(),
    }]});
    let index = seal.seal(index.to_string().as_bytes())?;
    let index_name = name(FileType::Index, &id(&index));
    storage.put(&index_name, vec![Bytes::from(index)])?;
    Ok(tree_id)
}

fn number(length: usize) -> Result<u32, Failure> {
    u32::try_from(length).map_err(Failure::internal)
}

/// The bytes of an id, which shows itself in hexadecimal only.
fn bytes_of(id: Id) -> Result<Vec<u8>, Failure> {
    let hex = id.to_hex();
    let digits = (0..hex.len()).step_by(2);
    let bytes = digits.map(|at| u8::from_str_radix(&hex[at..at + 2], 16));
    bytes.collect::<Result<_, _>>().map_err(Failure::internal)
}
