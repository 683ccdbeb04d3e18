//! The places of a listener: so many connections in all, and of these so many for one address.
//!
//! Without a bound for one address, whoever opens all connections and says nothing keeps everybody else out: Google's
//! notifications, the probes, the operator. A proxy is one address, too, and carries everybody. One on this machine is taken to be
//! trusted, as nobody else comes from here; for one elsewhere there is a setting.

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv6Addr};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::{OwnedSemaphorePermit, Semaphore};

/// Connections at a time, from everywhere; more wait until one ends.
pub const CONNECTIONS_MAX: usize = 64;
/// Of these one address may have so many, unless told otherwise: a browser takes six, and one more for each page it shows.
pub const CONNECTIONS_PER_ADDRESS_MAX: usize = 16;
/// The bits of an IPv6 address that are counted: whoever has one has all that begin with them.
const NETWORK_BITS: u32 = 64;

/// The places of one listener.
#[derive(Debug)]
pub(super) struct Places {
    all: Arc<Semaphore>,
    per_address_max: Option<usize>,
    taken: Mutex<BTreeMap<IpAddr, usize>>,
}

/// A free place that nobody has yet.
#[derive(Debug)]
pub(super) struct Free {
    _permit: OwnedSemaphorePermit,
}

/// A connection's place; it is free again when this is dropped.
#[derive(Debug)]
pub(super) struct Place {
    places: Arc<Places>,
    address: IpAddr,
    _free: Free,
}

impl Places {
    /// One address may have `per_address_max` of them; `None`: [`CONNECTIONS_PER_ADDRESS_MAX`], and all of them from this machine.
    ///
    /// # Panics
    /// If nobody could have one, or one address more than there are: the configuration refuses that.
    pub(super) fn new(per_address_max: Option<usize>) -> Arc<Self> {
        assert!(
            per_address_max.is_none_or(|max| (1..=CONNECTIONS_MAX).contains(&max)),
            "one address has a place, and no more than there are"
        );
        Arc::new(Places {
            all: Arc::new(Semaphore::new(CONNECTIONS_MAX)),
            per_address_max,
            taken: Mutex::default(),
        })
    }

    /// Waits until there is a place.
    pub(super) async fn free(&self) -> Free {
        let permit = Arc::clone(&self.all).acquire_owned().await;
        Free {
            _permit: permit.expect("the semaphore is never closed"),
        }
    }

    /// Gives it to `address`; `None` if that has as many as it may.
    pub(super) fn give(self: &Arc<Self>, free: Free, address: IpAddr) -> Option<Place> {
        let address = counted(address);
        let mut taken = self.lock();
        let of_this_address = taken.entry(address).or_default();
        let is_welcome = *of_this_address < self.max_of(address);
        if is_welcome {
            *of_this_address += 1;
        }
        assert!(taken.len() <= CONNECTIONS_MAX, "who has none is not kept");
        is_welcome.then(|| Place {
            places: Arc::clone(self),
            address,
            _free: free,
        })
    }

    fn max_of(&self, address: IpAddr) -> usize {
        match self.per_address_max {
            Some(max) => max,
            None if address.is_loopback() => CONNECTIONS_MAX,
            None => CONNECTIONS_PER_ADDRESS_MAX,
        }
    }

    fn lock(&self) -> MutexGuard<'_, BTreeMap<IpAddr, usize>> {
        self.taken.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let mut taken = self.places.lock();
        if let Some(of_this_address) = taken.get_mut(&self.address) {
            *of_this_address -= 1;
            if *of_this_address == 0 {
                taken.remove(&self.address);
            }
        }
    }
}

/// By what an address is counted.
fn counted(address: IpAddr) -> IpAddr {
    match address.to_canonical() {
        IpAddr::V6(six) if !six.is_loopback() => {
            let network = six.to_bits() >> NETWORK_BITS << NETWORK_BITS;
            IpAddr::V6(Ipv6Addr::from_bits(network))
        }
        other => other,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// As many as it gets out of `wanted`.
    async fn take(places: &Arc<Places>, address: &str, wanted: usize) -> Vec<Place> {
        let mut taken = Vec::new();
        for _ in 0..wanted {
            let free = places.free().await;
            taken.extend(places.give(free, address.parse().unwrap()));
        }
        taken
    }

    #[tokio::test]
    async fn one_address_leaves_places_to_others_and_gets_its_own_back() {
        let places = Places::new(None);
        let mut patient = take(&places, "192.0.2.1", CONNECTIONS_MAX).await;
        assert_eq!(patient.len(), CONNECTIONS_PER_ADDRESS_MAX);
        assert_eq!(take(&places, "192.0.2.2", 3).await.len(), 3);
        patient.pop();
        assert_eq!(take(&places, "192.0.2.1", 3).await.len(), 1);
        drop(patient);
        assert_eq!(places.lock().len(), 0);
        assert_eq!(places.all.available_permits(), CONNECTIONS_MAX);
    }

    #[tokio::test]
    async fn a_proxy_on_this_machine_may_have_all_and_one_elsewhere_what_is_set() {
        let places = Places::new(None);
        for here in ["127.0.0.1", "::1", "::ffff:127.0.0.1"] {
            assert_eq!(take(&places, here, 40).await.len(), 40, "{here}");
        }
        let places = Places::new(Some(48));
        for anywhere in ["192.0.2.1", "127.0.0.1"] {
            assert_eq!(take(&places, anywhere, 60).await.len(), 48, "{anywhere}");
        }
    }

    #[tokio::test]
    async fn whoever_has_a_network_is_counted_once() {
        let places = Places::new(Some(2));
        let _first = take(&places, "2001:db8:1:2::1", 1).await;
        let _second = take(&places, "2001:db8:1:2:ffff::2", 1).await;
        assert_eq!(take(&places, "2001:db8:1:2::3", 1).await.len(), 0);
        assert_eq!(take(&places, "2001:db8:1:3::1", 1).await.len(), 1);
    }
}
