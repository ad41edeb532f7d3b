use super::*;

const ROUND: Duration = Duration::from_millis(50);

/// Replicas on a wire that can be cut for some of them.
struct Rig {
    now: Duration,
    replicas: Vec<(Peers, bool)>,
}

impl Rig {
    fn new(count: u64, floor: u32) -> Self {
        let replicas = (1..=count).map(|me| (Peers::new(me, floor), true)).collect();
        Self { now: Duration::from_secs(100), replicas }
    }

    /// Everybody says something and hears what the wire carries.
    fn rounds(&mut self, rounds: usize) -> &mut Self {
        for _ in 0..rounds {
            self.now += ROUND;
            let now = self.now;
            let wired = self.replicas.iter_mut().filter(|(_, wired)| *wired);
            let said: Vec<_> = wired.map(|(peers, _)| peers.next_message(now)).collect();
            for (peers, _) in self.replicas.iter_mut().filter(|(_, wired)| *wired) {
                for message in &said {
                    peers.hear(message, now);
                }
            }
            self.fleets();
        }
        self
    }

    fn fleets(&mut self) -> Vec<ReplicaFleet> {
        let now = self.now;
        self.replicas.iter_mut().map(|(peers, wired)| peers.fleet(now, *wired)).collect()
    }

    fn shares(&mut self) -> Vec<(u32, u32)> {
        self.fleets().iter().map(|fleet| (fleet.share.part, fleet.share.of)).collect()
    }
}

#[test]
fn who_hears_the_others_gives_the_whole_limit_and_who_is_cut_off_a_part() {
    let mut rig = Rig::new(3, 1);
    assert_eq!(rig.rounds(3).shares(), [(1, 1); 3]);
    rig.replicas[2].1 = false;
    assert_eq!(rig.rounds(1).shares(), [(1, 1), (1, 1), (1, 3)], "noticed at once");
    for replica in &mut rig.replicas {
        replica.1 = false;
    }
    assert_eq!(rig.rounds(1).shares(), [(1, 3); 3]);
    // For however long.
    assert_eq!(rig.rounds(10_000).shares(), [(1, 3); 3]);
    for replica in &mut rig.replicas {
        replica.1 = true;
    }
    assert_eq!(rig.rounds(3).shares(), [(1, 1); 3]);
    assert_eq!(rig.fleets()[0], ReplicaFleet { share: Share::WHOLE, replicas: 3, heard: 3 });
}

#[test]
fn a_nats_that_hangs_is_noticed_by_the_missing_echo() {
    let mut peers = Peers::new(1, 3);
    let now = Duration::from_secs(9);
    let message = peers.next_message(now);
    assert_eq!(peers.fleet(now, true).share, Share { part: 1, of: 3 }, "nothing has come back yet");
    assert_eq!(peers.hear(&message, now), Reception::Own);
    assert_eq!(peers.fleet(now, true).heard, 1);
    assert_eq!(peers.fleet(now + FRESH, true).share, Share { part: 1, of: 3 }, "1 of 3 is less than half");
    let mut pair = Rig::new(2, 2);
    assert_eq!(pair.rounds(3).shares(), [(1, 1); 2]);
    let later = pair.now + FRESH + ROUND;
    assert_eq!(pair.replicas[0].0.fleet(later, true).share, Share { part: 1, of: 2 });
}

#[test]
fn a_dead_replica_is_forgotten_while_nats_works_and_only_then() {
    let mut rig = Rig::new(3, 1);
    rig.rounds(3);
    rig.replicas.truncate(2);
    rig.rounds(30);
    assert_eq!(rig.fleets()[0], ReplicaFleet { share: Share::WHOLE, replicas: 3, heard: 2 });
    rig.rounds(200);
    assert_eq!(rig.fleets()[0], ReplicaFleet { share: Share::WHOLE, replicas: 2, heard: 2 });
    // The floor holds.
    let mut rig = Rig::new(2, 5);
    assert_eq!(rig.rounds(300).shares(), [(2, 5); 2]);
}

#[test]
fn the_survivor_of_two_gives_the_whole_limit() {
    let mut rig = Rig::new(2, 2);
    rig.rounds(3);
    rig.replicas.truncate(1);
    assert_eq!(rig.rounds(40).shares(), [(1, 1)]);
}

#[test]
fn who_leaves_is_forgotten_at_once() {
    let mut rig = Rig::new(2, 1);
    rig.rounds(3);
    let now = rig.now;
    let last = Spending { leaving: true, ..rig.replicas[1].0.next_message(now) };
    let survivor = &mut rig.replicas[0].0;
    assert_eq!(survivor.hear(&last, now), Reception::Counts);
    assert_eq!(survivor.fleet(now, true).replicas, 1);
    assert_eq!(survivor.hear(&last, now), Reception::Repeated);
    let after = Spending { sequence: last.sequence + 1, leaving: false, ..last };
    assert_eq!(survivor.hear(&after, now), Reception::Repeated, "nothing follows a last word");
}

#[test]
fn what_was_recorded_is_worth_nothing_to_anybody() {
    let mut rig = Rig::new(2, 1);
    rig.rounds(3);
    let recorded = rig.replicas[1].0.next_message(rig.now);
    let now = rig.now;
    let first = &mut rig.replicas[0].0;
    assert_eq!(first.hear(&recorded, now), Reception::Counts);
    assert_eq!(first.hear(&recorded, now), Reception::Repeated);
    // The sender is gone and forgotten; then the listener has been started again.
    rig.replicas.truncate(1);
    rig.rounds(300);
    let now = rig.now;
    let first = &mut rig.replicas[0].0;
    assert_eq!(first.hear(&recorded, now), Reception::Unanswering);
    assert_eq!(first.fleet(now, true).replicas, 1);
    let mut again = Peers::new(77, 1);
    again.next_message(now);
    assert_eq!(again.hear(&recorded, now), Reception::Unanswering);
    assert_eq!(again.fleet(now, true).replicas, 1);
}

#[test]
fn what_comes_late_does_not_count() {
    let mut rig = Rig::new(2, 1);
    rig.rounds(3);
    let late = rig.replicas[1].0.next_message(rig.now);
    let now = rig.now + FRESH + ROUND;
    let first = &mut rig.replicas[0].0;
    assert_eq!(first.hear(&late, now), Reception::Unanswering);
}

#[test]
fn a_flood_of_names_is_bounded_and_soon_forgotten() {
    let mut peers = Peers::new(1, 1);
    let now = Duration::from_secs(5);
    let said = |from: u64| Spending { from, sequence: 1, ..Spending::default() };
    let worths: Vec<_> = (10..1_000).map(|from| peers.hear(&said(from), now)).collect();
    assert_eq!(worths.iter().filter(|worth| **worth == Reception::Unanswering).count(), MOST_PEERS);
    assert_eq!(peers.fleet(now, true).replicas, 1);
    peers.fleet(now + 3 * FRESH, true);
    assert!(peers.peers.is_empty());
}
