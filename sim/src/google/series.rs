//! Changes of series, with the increments that were recorded from Google.
//!
//! A series and its exceptions are one record: whatever touches one of them stamps them all, and the increment holds
//! the master and every exception, changed or not. A cut ("this and following") ends the rule at the end of the day
//! before; what follows gets a new master `<first id>_R<start>`; exceptions behind the cut come back as bare
//! cancelled ids, without their tie to the series. A deleted series is one bare id; its exceptions are not mentioned.

use kalends_core::time::SECOND_MS;

use super::change::{ChangeError, Patch, Planned, Planner};
use super::event::{Event, Instance, Rule};
use super::generator::original_shifted;
use super::when::{When, local_day_and_minute, local_instant};

/// One series as it stands.
struct Series {
    master: Event,
    rule: Rule,
    exceptions: Vec<Event>,
}

fn find(planner: &Planner<'_>, id: &str) -> Result<Series, ChangeError> {
    let master = planner.calendar.event(id).ok_or(ChangeError::NoSuchEvent)?;
    let rule = master.rule.ok_or(ChangeError::NoSuchEvent)?;
    let family = planner.calendar.family(id).into_iter();
    let exceptions = family.filter(|event| {
        let instance = event.instance.as_ref();
        instance.is_some_and(|instance| instance.series == id)
    });
    Ok(Series {
        rule,
        exceptions: exceptions.map(|event| event.into_owned()).collect(),
        master: master.into_owned(),
    })
}

/// The id of the series from which this one was split off, or its own.
fn root(id: &str) -> &str {
    id.split_once("_R").map_or(id, |(root, _)| root)
}

/// Changes one instance: the increment holds the master and every exception.
pub(super) fn change_instance(
    planner: &Planner<'_>,
    id: &str,
    occurrence: u32,
    change: impl FnOnce(&mut Event) -> Result<(), ChangeError>,
) -> Result<Vec<Planned>, ChangeError> {
    let mut series = find(planner, id)?;
    let original = series.rule.occurrence(series.master.start, occurrence);
    let original = original.filter(|original| original.is_in_range());
    let original = original.ok_or(ChangeError::NoSuchOccurrence)?;
    let instance_id = format!("{id}_{}", original.id_suffix());
    let found = series
        .exceptions
        .iter()
        .position(|event| event.id == instance_id);
    let place = found.unwrap_or_else(|| {
        let exception = exception(&series.master, instance_id, original);
        series.exceptions.push(exception);
        series.exceptions.len() - 1
    });
    if series.exceptions[place].is_cancelled() {
        return Err(ChangeError::NoSuchOccurrence);
    }
    change(&mut series.exceptions[place])?;
    let mut planned = vec![Planned::Put(Box::new(series.master))];
    planned.extend(
        series
            .exceptions
            .into_iter()
            .map(|event| Planned::Put(Box::new(event))),
    );
    Ok(planned)
}

/// An instance made a thing of its own, still as the rule has it.
fn exception(master: &Event, id: String, original: When) -> Event {
    let mut event = master.clone();
    event.end = original_shifted(original, master.start, master.end);
    event.start = original;
    event.rule = None;
    event.instance = Some(Instance {
        series: master.id.clone(),
        original,
    });
    event.id = id;
    event
}

/// Edits a series and all that was split off it.
pub(super) fn edit(
    planner: &Planner<'_>,
    id: &str,
    patch: &Patch,
) -> Result<Vec<Planned>, ChangeError> {
    find(planner, id)?;
    let family = planner.calendar.family(root(id));
    let mut planned = Vec::with_capacity(family.len());
    for member in family {
        let mut member = member.into_owned();
        if !member.is_cancelled() {
            planner.patch(&mut member, patch)?;
        }
        planned.push(Planned::Put(Box::new(member)));
    }
    Ok(planned)
}

/// Ends a series before an occurrence; with a patch, a new one goes on from there.
pub(super) fn cut(
    planner: &Planner<'_>,
    id: &str,
    occurrence: u32,
    following: Option<&Patch>,
) -> Result<Vec<Planned>, ChangeError> {
    let series = find(planner, id)?;
    let first_behind = series.rule.occurrence(series.master.start, occurrence);
    let first_behind = first_behind
        .filter(|at| occurrence > 0 && at.is_in_range())
        .ok_or(ChangeError::NoSuchOccurrence)?;
    let mut master = series.master.clone();
    let rule = Rule {
        until: Some(end_of_day_before(first_behind)),
        ..series.rule
    };
    master.rule = Some(rule);
    let mut planned = vec![Planned::Put(Box::new(master))];
    if let Some(patch) = following {
        let mut next = exception(&series.master, String::new(), first_behind);
        next.id = format!("{}_R{}", root(id), first_behind.split_suffix());
        if planner.calendar.event(&next.id).is_some() {
            return Err(ChangeError::NoSuchOccurrence);
        }
        next.instance = None;
        next.rule = Some(series.rule);
        planner.patch(&mut next, patch)?;
        planned.push(Planned::Put(Box::new(next)));
    }
    for exception in series.exceptions {
        let original = exception
            .instance
            .as_ref()
            .map(|instance| instance.original);
        let original = original.expect("an exception stands for an instance");
        planned.push(if original.instant() < first_behind.instant() {
            Planned::Put(Box::new(exception))
        } else {
            Planned::Delete(exception.id)
        });
    }
    Ok(planned)
}

/// Where Google puts UNTIL: a second before the day of the cut begins, or the day before.
fn end_of_day_before(at: When) -> When {
    match at {
        When::Date(day) => When::Date(day - 1),
        When::Time { at, zone } => {
            let (day, _) = local_day_and_minute(at, zone);
            When::Time {
                at: local_instant(day, 0, zone).minus_ms(SECOND_MS),
                zone,
            }
        }
    }
}

/// Deletes a series.
pub(super) fn delete(planner: &Planner<'_>, id: &str) -> Result<Vec<Planned>, ChangeError> {
    let series = find(planner, id)?;
    let mut planned = vec![Planned::Delete(series.master.id)];
    let exceptions = series.exceptions.into_iter();
    planned.extend(exceptions.map(|exception| Planned::Hide(exception.id)));
    Ok(planned)
}
