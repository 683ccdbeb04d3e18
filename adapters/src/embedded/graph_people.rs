//! The people of an event: contacts and the edges to them, within one graph write.
//!
//! A contact lives as long as an edge leads to it. Whoever loses one is noted, and looked at again when the write is
//! otherwise done: somebody who left one event may have come to another in the same batch.

use kalends_core::graph::{EventRow, Person, contact_uid};
use rusqlite::{OptionalExtension, params};

use super::graph_write::{Batch, WriteError, belongs};
use super::properties::{ContactProperties, ORGANIZER_TEXT, attendee_text, contact_text};

/// A contact as this batch knows it.
pub(super) struct Contact {
    node: i64,
    email: Option<String>,
    name: Option<String>,
}

impl<'a> Batch<'a> {
    /// Removes the edges of a changed event; those that are still wanted are written anew.
    pub(super) fn remove_people(&mut self, node: i64) -> Result<(), WriteError> {
        if self.loosen(node)? {
            self.connection
                .prepare_cached("DELETE FROM edge WHERE src = ?1")?
                .execute([node])?;
        }
        Ok(())
    }

    /// Notes everybody whom this event refers to as perhaps unused; says whether there was anybody.
    pub(super) fn loosen(&mut self, node: i64) -> Result<bool, WriteError> {
        let mut statement = self
            .connection
            .prepare_cached("SELECT dst FROM edge WHERE src = ?1")?;
        let mut rows = statement.query([node])?;
        let mut any = false;
        while let Some(row) = rows.next()? {
            self.loosened.insert(row.get(0)?);
            any = true;
        }
        Ok(any)
    }

    pub(super) fn write_people(&mut self, node: i64, row: &'a EventRow) -> Result<(), WriteError> {
        for attendee in &row.attendees {
            let contact = self.contact(&attendee.person)?;
            self.write_edge("ATTENDED_BY", node, contact, &attendee_text(attendee))?;
        }
        // Last, so that of two names of one person in one event the organiser's stays, in every graph.
        if let Some(organizer) = &row.organizer {
            let contact = self.contact(organizer)?;
            self.write_edge("ORGANIZED_BY", node, contact, ORGANIZER_TEXT)?;
        }
        Ok(())
    }

    fn write_edge(
        &self,
        edge_type: &str,
        src: i64,
        dst: i64,
        props: &str,
    ) -> Result<(), WriteError> {
        self.connection
            .prepare_cached(
                "INSERT INTO edge (type, src, dst, props) VALUES (?1, ?2, ?3, ?4)
                 ON CONFLICT (src, type, dst) DO UPDATE SET props = excluded.props",
            )?
            .execute(params![edge_type, src, dst, props])?;
        Ok(())
    }

    /// The contact's node: from the cache, from the file, or new. A name that is given replaces the one it has.
    fn contact(&mut self, person: &'a Person) -> Result<i64, WriteError> {
        if !self.contacts.contains_key(person.key.as_str()) {
            let contact = self.look_up_contact(person)?;
            self.contacts.insert(&person.key, contact);
        }
        let contact = self
            .contacts
            .get_mut(person.key.as_str())
            .expect("was put there a line ago");
        let renamed = person.name.is_some() && contact.name != person.name;
        let addressed = person.email.is_some() && contact.email != person.email;
        if renamed {
            contact.name.clone_from(&person.name);
        }
        if addressed {
            contact.email.clone_from(&person.email);
        }
        if renamed || addressed {
            let props = contact_text(contact.email.as_deref(), contact.name.as_deref());
            self.connection
                .prepare_cached("UPDATE node SET props = ?2 WHERE id = ?1")?
                .execute(params![contact.node, props])?;
        }
        Ok(contact.node)
    }

    fn look_up_contact(&self, person: &Person) -> Result<Contact, WriteError> {
        let uid = contact_uid(self.user, &person.key);
        let standing: Option<(i64, i64, String)> = self
            .connection
            .prepare_cached(
                "SELECT id, parent, props FROM node WHERE label = 'Contact' AND uid = ?1",
            )?
            .query_row([&uid], |row| Ok((row.get(0)?, row.get(1)?, row.get(2)?)))
            .optional()?;
        if let Some((node, parent, props)) = standing {
            belongs(parent == self.user_node, &uid)?;
            // Unreadable properties are mended by the next name or address that is written.
            let read: ContactProperties<'_> = serde_json::from_str(&props).unwrap_or_default();
            return Ok(Contact {
                node,
                email: read.email.map(Into::into),
                name: read.name.map(Into::into),
            });
        }
        let props = contact_text(person.email.as_deref(), person.name.as_deref());
        self.connection
            .prepare_cached(
                "INSERT INTO node (label, uid, parent, props) VALUES ('Contact', ?1, ?2, ?3)",
            )?
            .execute(params![uid, self.user_node, props])?;
        Ok(Contact {
            node: self.connection.last_insert_rowid(),
            email: person.email.clone(),
            name: person.name.clone(),
        })
    }

    pub(super) fn remove_unused_contacts(&mut self) -> Result<(), WriteError> {
        for contact in std::mem::take(&mut self.loosened) {
            self.connection
                .prepare_cached(
                    "DELETE FROM node WHERE id = ?1 AND NOT EXISTS
                     (SELECT 1 FROM edge WHERE dst = ?1)",
                )?
                .execute([contact])?;
        }
        Ok(())
    }
}
