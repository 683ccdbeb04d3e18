//! Notifications on their way: what Google sends, what is lost, doubled, late, and what somebody else posts.

use kalends_core::google::query::FetchRequest;

use super::{AGAIN_MAX, AGAIN_MS, Posted, UNSEEN_MAX, WAY, World};
use crate::google::{Notification as Told, channel_token};
use crate::plan::FaultKind;
use crate::world::event::Event;

impl World<'_> {
    /// Somebody has changed a calendar of the user.
    pub(in crate::world) fn changed(&mut self, user: u32) {
        if let Some(push) = &mut self.push {
            let unseen = &mut push.unseen[user as usize];
            if unseen.len() < UNSEEN_MAX {
                unseen.push_back(self.now);
            }
            self.send_notifications();
        }
    }

    /// What Google has to tell goes on its way.
    pub(in crate::world) fn send_notifications(&mut self) {
        if self.push.is_none() {
            return;
        }
        for told in self.google.notifications(self.now) {
            if self.push_chance(self.weather.push_dropped_ppm) {
                self.marks.mark("push-dropped");
                continue;
            }
            if self.push_chance(self.weather.push_doubled_ppm) {
                self.marks.mark("push-doubled");
                self.post(told.clone());
            }
            self.post(told);
        }
    }

    pub(super) fn post(&mut self, told: Told) {
        let (least, most) = self.weather.push_delay_ms;
        self.marks.mark_if(most > 0, "push-late");
        let mut way_ms = u64::from(WAY.min_ms + least);
        way_ms += self.draw_push(u64::from(WAY.max_ms - WAY.min_ms));
        way_ms += self.draw_push(u64::from(most - least));
        let posted = Box::new(Posted { told, tries: 0 });
        let at = self.now.plus_ms(way_ms);
        self.heap.push(at, Event::Posted { posted });
    }

    /// A notification comes to the load balancer.
    pub(in crate::world) fn posted(&mut self, posted: Box<Posted>) {
        let processes = 0..self.plan.size.processes;
        let up: Vec<u32> = processes
            .filter(|process| self.processes[*process as usize].ear.is_some())
            .collect();
        if up.is_empty() {
            self.marks.mark("push-nobody-there");
            return self.come_again(posted);
        }
        let chosen = self.draw_push(up.len() as u64 - 1);
        let process = up[usize::try_from(chosen).expect("below the length")];
        let place = &mut self.processes[process as usize];
        if place.paused_at.is_some() {
            let incarnation = place.incarnation;
            place.held.push_back(Event::Hear {
                process,
                incarnation,
                posted,
            });
            return;
        }
        self.hear(process, posted);
    }

    /// A process that was paused finds a notification.
    pub(in crate::world) fn hear_late(
        &mut self,
        process: u32,
        incarnation: u32,
        posted: Box<Posted>,
    ) {
        let place = &self.processes[process as usize];
        if place.incarnation == incarnation && place.ear.is_some() {
            self.hear(process, posted);
        }
    }

    pub(super) fn come_again(&mut self, mut posted: Box<Posted>) {
        if posted.told.forged {
            return;
        }
        if posted.tries >= AGAIN_MAX {
            self.marks.mark("push-given-up");
            return;
        }
        let at = self.now.plus_ms(AGAIN_MS << posted.tries);
        posted.tries += 1;
        self.heap.push(at, Event::Posted { posted });
    }

    // -- what is wrong ---------------------------------------------------------------------------------------------

    /// Somebody posts what Google never sent.
    pub(in crate::world) fn forge(&mut self, index: u32) {
        let FaultKind::PushForged { every_ms } = self.plan.faults[index as usize].kind else {
            panic!("only a forger forges");
        };
        if self.push.is_none() || !self.active[index as usize] {
            return;
        }
        let users = u64::from(self.plan.size.users);
        let drawn = self.draw_push(users - 1);
        let user = self.users[usize::try_from(drawn).expect("below the length")].clone();
        let live = self
            .google
            .channels_of(user.as_str(), "primary")
            .expect("a user of the emulator");
        let stolen = live.last().map_or("nobody-s", |(id, _)| id.as_str());
        let good = channel_token(&user, stolen);
        // A channel that there is with another's token, one's own channel, a token that is nearly good, none at all.
        let (channel, token) = match self.draw_push(3) {
            0 => (stolen.to_owned(), channel_token(&user, "another")),
            1 => ("kalends-0-00".to_owned(), good),
            2 => (stolen.to_owned(), good[..good.len() - 1].to_owned()),
            _ => (stolen.to_owned(), String::new()),
        };
        let header = |name: &str, value: String| (name.to_owned(), value);
        self.post(Told {
            at: self.now,
            address: String::new(),
            headers: vec![
                header("x-goog-channel-id", channel),
                header("x-goog-channel-token", token),
                header("x-goog-resource-state", "exists".to_owned()),
            ],
            forged: true,
        });
        let at = self.now.plus_ms(every_ms.max(1));
        self.heap.push(at, Event::Forge { index });
    }

    /// Google tells of one calendar again and again.
    pub(in crate::world) fn tell_again(&mut self, index: u32) {
        let FaultKind::PushFlood { user, every_ms } = self.plan.faults[index as usize].kind else {
            panic!("only a flood floods");
        };
        if self.push.is_none() || !self.active[index as usize] {
            return;
        }
        let user = self.users[(user % self.plan.size.users) as usize].clone();
        self.google
            .tell_again(self.now, user.as_str())
            .expect("a user of the emulator");
        self.send_notifications();
        let at = self.now.plus_ms(every_ms.max(1));
        self.heap.push(at, Event::TellAgain { index });
    }

    /// Whether Google's answer to this request is to be lost after a channel was made.
    pub(in crate::world) fn loses_watch(&mut self, request: &FetchRequest) -> bool {
        matches!(request, FetchRequest::Watch { .. })
            && self.push.is_some()
            && self.push_chance(self.weather.watch_lost_ppm)
    }
}
