//! The extended attributes that belong to files: those of programs, POSIX ACLs, and file capabilities. Others belong to the file system
//! or to the node's policy, such as the labels of SELinux.

use std::{ffi::CString, io, os::fd::AsFd};

use rustix::{
    fs::{XattrFlags, fgetxattr, flistxattr, fremovexattr, fsetxattr},
    io::Errno,
};

use super::entry::Text;

/// Largest value and largest list of names (xattr(7)).
const LIMIT_BYTES: usize = 64 << 10;
const PREFIXES: [&[u8]; 3] = [b"user.", b"system.posix_acl_", b"security.capability"];

fn is_copied(name: &[u8]) -> bool {
    PREFIXES.iter().any(|prefix| name.starts_with(prefix))
}

/// Whether all of them may be set.
pub(super) fn are_allowed(attributes: &[(Text, Text)]) -> bool {
    attributes.iter().all(|(name, value)| {
        let is_short = name.0.len() <= 255 && value.0.len() <= LIMIT_BYTES;
        is_short && is_copied(&name.0) && !name.0.contains(&0)
    })
}

/// Those of an open file, ordered by name.
pub(super) fn of(file: &impl AsFd) -> io::Result<Vec<(Text, Text)>> {
    let mut names = vec![0; LIMIT_BYTES];
    let length = match flistxattr(file, &mut names) {
        Err(Errno::NOTSUP) => return Ok(Vec::new()),
        other => other?,
    };
    let names = names[..length].split(|byte| *byte == 0);
    let mut found = Vec::new();
    let mut value = Vec::new();
    for name in names.filter(|name| is_copied(name)) {
        value.resize(LIMIT_BYTES, 0);
        let length = fgetxattr(file, CString::new(name)?, &mut value)?;
        found.push((Text(name.to_owned()), Text(value[..length].to_owned())));
    }
    found.sort();
    Ok(found)
}

/// Gives an open file exactly these.
pub(super) fn set(file: &impl AsFd, wanted: &[(Text, Text)]) -> io::Result<()> {
    let present = of(file)?;
    for (name, _) in &present {
        if !wanted.iter().any(|(wanted, _)| wanted == name) {
            fremovexattr(file, CString::new(name.0.clone())?)?;
        }
    }
    for attribute in wanted.iter().filter(|it| !present.contains(it)) {
        let (name, value) = attribute;
        let name = CString::new(name.0.clone())?;
        fsetxattr(file, name, &value.0, XattrFlags::empty())?;
    }
    Ok(())
}
