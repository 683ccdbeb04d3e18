//! Jobs as the scripts know them: a block (0 is that of the fan-outs, then source by source) and a name.

use kalends_core::id::SourceName;
use kalends_core::queue::state::JobKey;

use super::wire::{Unreadable, Value, Writer};

/// The sources of these jobs, by name, each once.
pub(super) fn sources_of<'a>(keys: impl Iterator<Item = &'a JobKey>) -> Vec<SourceName> {
    let mut sources: Vec<SourceName> = keys
        .filter_map(|key| match key {
            JobKey::Sync { source, .. } => Some(source.clone()),
            JobKey::FanOut { .. } => None,
        })
        .collect();
    sources.sort();
    sources.dedup();
    sources
}

/// The block of a job among those of `sources`.
///
/// # Panics
/// If its source is not among them: the caller collected them with [`sources_of`].
pub(super) fn block_of(key: &JobKey, sources: &[SourceName]) -> u64 {
    match key {
        JobKey::FanOut { .. } => 0,
        JobKey::Sync { source, .. } => {
            let place = sources.iter().position(|one| one == source);
            place.expect("the caller collected the sources") as u64 + 1
        }
    }
}

/// Whether the job is of one of `sources`, or a fan-out.
pub(super) fn is_among(key: &JobKey, sources: &[SourceName]) -> bool {
    match key {
        JobKey::FanOut { .. } => true,
        JobKey::Sync { source, .. } => sources.contains(source),
    }
}

/// The name of a job in its block.
pub(super) fn name_of(key: &JobKey) -> &str {
    match key {
        JobKey::FanOut { schedule } => schedule.as_str(),
        JobKey::Sync { user, .. } => user.as_str(),
    }
}

/// Block and name, as two arguments.
pub(super) fn write_key(writer: &mut Writer, key: &JobKey, sources: &[SourceName]) {
    writer.number(block_of(key, sources)).text(name_of(key));
}

/// The job in this block with this name.
pub(super) fn read_key(
    block: &Value,
    name: Value,
    sources: &[SourceName],
) -> Result<JobKey, Unreadable> {
    let block: usize = block.number()?;
    if block == 0 {
        return Ok(JobKey::FanOut {
            schedule: name.name()?,
        });
    }
    let source = sources.get(block - 1);
    Ok(JobKey::Sync {
        source: source.ok_or(Unreadable("a block has no source"))?.clone(),
        user: name.name()?,
    })
}
