//! Members that come, go, fall silent and lose answers, topics that change and processes that end:
//! whatever happens, no task is with two members, epochs only grow, and when it is quiet again all
//! tasks are given.

use proptest::prelude::*;

use super::*;

#[derive(Clone, Debug)]
enum Event {
    Join {
        process: u8,
    },
    Leave(u8),
    /// It stops for good; its session has to end.
    Die(u8),
    Beat(u8),
    /// The answer is lost.
    BeatUnheard(u8),
    Pass(u16),
    Crash,
    GrowInput,
    LoseInternalTopic,
    Standbys(u8),
}

fn event() -> impl Strategy<Value = Event> {
    prop_oneof![
        3 => (0..4_u8).prop_map(|process| Event::Join { process }),
        1 => any::<u8>().prop_map(Event::Leave),
        1 => any::<u8>().prop_map(Event::Die),
        12 => any::<u8>().prop_map(Event::Beat),
        3 => any::<u8>().prop_map(Event::BeatUnheard),
        2 => (0..20_000_u16).prop_map(Event::Pass),
        1 => Just(Event::Crash),
        1 => Just(Event::GrowInput),
        1 => Just(Event::LoseInternalTopic),
        1 => (0..3_u8).prop_map(Event::Standbys),
    ]
}

struct World {
    server: Server,
    clients: Vec<Client>,
    named: u32,
    epoch: i32,
}

impl World {
    fn pick(&self, index: u8) -> Option<usize> {
        (!self.clients.is_empty()).then(|| usize::from(index) % self.clients.len())
    }

    fn beat(&mut self, at: usize) {
        if self.server.heartbeat(&mut self.clients[at]).is_err() {
            self.clients[at].lose_all();
        }
    }

    fn step(&mut self, event: &Event) {
        match *event {
            Event::Join { process } => {
                self.named += 1;
                let name = format!("m{}", self.named);
                self.clients.push(Client::new(&name, &format!("p{process}")));
                self.beat(self.clients.len() - 1);
            }
            Event::Leave(index) => {
                let Some(at) = self.pick(index) else { return };
                let client = self.clients.remove(at);
                let leaving = request::StreamsGroupHeartbeatRequest {
                    member_epoch: -1,
                    topology: None,
                    ..client.request()
                };
                let _ = self.server.beat(&leaving);
            }
            Event::Die(index) => {
                let Some(at) = self.pick(index) else { return };
                self.clients.remove(at);
            }
            Event::Beat(index) => {
                let Some(at) = self.pick(index) else { return };
                self.beat(at);
            }
            Event::BeatUnheard(index) => {
                let Some(at) = self.pick(index) else { return };
                let _ = self.server.beat(&self.clients[at].request());
            }
            Event::Pass(ms) => {
                // Those who live are heard of in time.
                self.server.pass(u64::from(ms));
                for at in 0..self.clients.len() {
                    self.beat(at);
                }
            }
            Event::Crash => self.server.crash(),
            Event::GrowInput => {
                let now = self.server.topics["in"].partitions;
                if now < 8 {
                    self.server.grow_topic("in", now + 1);
                    // They do not fit any more: whoever runs the application deletes them.
                    self.server.delete_topic("by-word");
                    self.server.delete_topic("counts");
                }
            }
            Event::LoseInternalTopic => self.server.delete_topic("counts"),
            Event::Standbys(count) => self.server.settings.standbys = i32::from(count),
        }
    }

    fn check(&mut self) {
        let mut seen = BTreeMap::new();
        for client in &self.clients {
            for task in client.active_tasks() {
                let other = seen.insert(task.clone(), client.id.clone());
                assert_eq!(other, None, "{task:?} is with {} as well", client.id);
            }
        }
        let described = self.server.describe();
        assert!(described.group_epoch >= self.epoch, "the epoch went back");
        self.epoch = described.group_epoch;
        assert!(described.assignment_epoch <= described.group_epoch);
        for member in &described.members {
            assert!(member.member_epoch <= described.group_epoch);
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 400, ..ProptestConfig::default() })]

    #[test]
    fn no_task_is_with_two_and_all_are_given_in_the_end(
        events in prop::collection::vec(event(), 1..80),
    ) {
        let server = Server::new(&[("in", 3)]);
        let mut world = World { server, clients: Vec::new(), named: 0, epoch: 0 };
        for event in &events {
            world.step(event);
            world.check();
        }
        // Whoever is dead is given up, and the others come to rest.
        for _ in 0..4 {
            world.server.pass(20_000);
            for at in 0..world.clients.len() {
                world.beat(at);
                world.check();
            }
        }
        world.server.settle(&mut world.clients);
        world.check();
        if world.clients.is_empty() {
            prop_assert_eq!(world.server.group.state(), State::Empty);
            return Ok(());
        }
        prop_assert_eq!(world.server.group.state(), State::Stable);
        let partitions = world.server.topics["in"].partitions;
        let all: BTreeSet<(Str, i32)> = ["0", "1"]
            .iter()
            .flat_map(|id| (0..partitions).map(|p| (text(id), p)))
            .collect();
        let given = world.clients.iter().flat_map(|client| client.active_tasks());
        prop_assert_eq!(given.collect::<BTreeSet<_>>(), all);
        // What the clients have is what the group thinks they have, and it survives.
        let before = world.server.describe();
        world.server.crash();
        world.server.settle(&mut world.clients);
        prop_assert_eq!(world.server.describe(), before);
    }
}
