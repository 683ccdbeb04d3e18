//! What tests, the demo and the simulator let happen to users and their calendars, beside changes of events.

use kalends_core::time::Timestamp;

use super::calendar::AccessRole;
use super::fault::{FAULTS_WAITING_MAX, Fault};
use super::fixture::{Fixture, FixtureError};
use super::{GoogleEmulator, Unknown};

impl GoogleEmulator {
    /// Orders a misfortune for a user's requests, or (`None`) for anybody's.
    ///
    /// # Errors
    /// If there is no such user.
    ///
    /// # Panics
    /// If more than [`FAULTS_WAITING_MAX`] wait in that queue.
    pub fn inject(&mut self, user: Option<&str>, fault: Fault) -> Result<(), Unknown> {
        let user = user.map(|user| self.user(user)).transpose()?;
        assert!(
            self.faults.waiting(user) < FAULTS_WAITING_MAX,
            "too many faults wait"
        );
        self.faults.push(user, fault);
        Ok(())
    }

    /// Takes back all misfortunes that have not befallen anybody yet.
    pub fn clear_faults(&mut self) {
        self.faults.clear();
    }

    /// Ends a user's grant: no token of theirs is good any more, and `/token` says `invalid_grant`.
    ///
    /// # Errors
    /// If there is no such user.
    pub fn revoke(&mut self, user: &str) -> Result<(), Unknown> {
        let user = self.user(user)?;
        self.grants.revoke(user);
        Ok(())
    }

    /// The user connects again: the refresh token is good again, access tokens of before are not.
    ///
    /// # Errors
    /// If there is no such user.
    pub fn restore(&mut self, now: Timestamp, user: &str) -> Result<(), Unknown> {
        let user = self.user(user)?;
        self.grants.restore(now, user);
        Ok(())
    }

    /// Ends the access tokens that a user has; a refresh gives a new one.
    ///
    /// # Errors
    /// If there is no such user.
    pub fn expire_access_tokens(&mut self, now: Timestamp, user: &str) -> Result<(), Unknown> {
        let user = self.user(user)?;
        self.grants.expire_access_tokens(now, user);
        Ok(())
    }

    /// Makes the sync tokens of all of a user's calendars worthless: the next increment gets 410.
    ///
    /// # Errors
    /// If there is no such user.
    pub fn expire_sync_tokens(&mut self, user: &str) -> Result<(), Unknown> {
        let user = self.user(user)?;
        for calendar in 0..self.settings.calendars_per_user.max(1) {
            self.states.entry((user, calendar)).or_default().generation += 1;
        }
        Ok(())
    }

    /// The id of a user's calendar by its number, removed or not; 0 is the primary one.
    ///
    /// # Errors
    /// If there is no such user or calendar.
    pub fn calendar_by_number(&self, user: &str, number: u32) -> Result<String, Unknown> {
        let user = self.user(user)?;
        if number >= self.settings.calendars_per_user.max(1) {
            return Err(Unknown);
        }
        Ok(self.calendar_id(user, number))
    }

    /// Takes a calendar away: its events are 404, the list's increment says `deleted`.
    ///
    /// # Errors
    /// If there is no such user or calendar.
    pub fn remove_calendar(
        &mut self,
        now: Timestamp,
        user: &str,
        calendar: &str,
    ) -> Result<(), Unknown> {
        self.list_change(now, user, calendar, true)
    }

    /// Gives a removed calendar back, with its events, but with new sync tokens.
    ///
    /// # Errors
    /// If there is no such user or calendar.
    pub fn restore_calendar(
        &mut self,
        now: Timestamp,
        user: &str,
        calendar: &str,
    ) -> Result<(), Unknown> {
        self.list_change(now, user, calendar, false)
    }

    /// Changes what a user may do with a calendar. Its sync tokens end; the list's increment does not mention it.
    ///
    /// # Errors
    /// If there is no such user or calendar.
    pub fn set_access_role(
        &mut self,
        user: &str,
        calendar: &str,
        role: AccessRole,
    ) -> Result<(), Unknown> {
        let user = self.user(user)?;
        let calendar = self.calendar_number(user, calendar).ok_or(Unknown)?;
        let state = self.states.entry((user, calendar)).or_default();
        state.role = Some(role);
        state.generation += 1;
        Ok(())
    }

    /// Replaces a user's primary calendar by the events of a file: an array of events, of `{"why","event"}` objects,
    /// one `events.list` answer, or an array of answers, of which the first is shown now and the others wait for
    /// [`GoogleEmulator::play_next_fixture`]. Sync tokens of before end.
    ///
    /// # Errors
    /// If there is no such user, or the text is not understood.
    pub fn load_fixture(&mut self, user: &str, json: &str) -> Result<(), FixtureError> {
        let user = self.user(user).map_err(|_| FixtureError::UnknownUser)?;
        let mut fixture = Fixture::read(json)?;
        let base = self.base(user, 0);
        let state = self.states.entry((user, 0)).or_default();
        let stamp_us = state.next_stamp_us(&base, self.settings.epoch);
        fixture.play_next(stamp_us);
        state.overlay.clear();
        state.generation += 1;
        state.fixture = Some(fixture);
        Ok(())
    }

    /// Plays the next answer of a user's file as an increment; false if there is none.
    ///
    /// # Errors
    /// If there is no such user.
    pub fn play_next_fixture(&mut self, now: Timestamp, user: &str) -> Result<bool, Unknown> {
        let user = self.user(user)?;
        let base = self.base(user, 0);
        let Some(state) = self.states.get_mut(&(user, 0)) else {
            return Ok(false);
        };
        if state
            .fixture
            .as_ref()
            .is_none_or(|fixture| fixture.waiting() == 0)
        {
            return Ok(false);
        }
        let stamp_us = state.next_stamp_us(&base, now);
        let fixture = state.fixture.as_mut().expect("looked at just now");
        let is_played = fixture.play_next(stamp_us);
        if is_played {
            self.tell_watchers(now, user, 0);
        }
        Ok(is_played)
    }

    fn list_change(
        &mut self,
        now: Timestamp,
        user: &str,
        calendar: &str,
        removed: bool,
    ) -> Result<(), Unknown> {
        let user = self.user(user)?;
        let calendar = self.calendar_number(user, calendar).ok_or(Unknown)?;
        let stamp_us = (now.as_ms().saturating_mul(1_000)).max(self.list_stamp_us(user) + 1);
        let state = self.states.entry((user, calendar)).or_default();
        state.removed = removed;
        state.generation += 1;
        state.list_stamp_us = stamp_us;
        Ok(())
    }
}
