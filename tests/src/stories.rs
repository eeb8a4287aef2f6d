//! Little stories of who goes where and who takes what, with questions whose answers follow from one fact or from two. Written in the manner
//! of the bAbI tasks 1 and 2 (Weston et al., arXiv:1502.05698).

use std::collections::BTreeMap;
use std::ops::RangeInclusive;

use rand::seq::{IndexedRandom, SliceRandom};
use rand::{RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;
use serde_json::{Value, json};

const PEOPLE: [&str; 8] = ["Mary", "John", "Daniel", "Sandra", "Julie", "Bill", "Emma", "Peter"];
const PLACES: [&str; 10] = ["kitchen", "garden", "office", "bathroom", "hallway", "bedroom", "cellar", "attic", "park", "school"];
const OBJECTS: [&str; 5] = ["apple", "football", "milk", "book", "lamp"];
/// How often somebody goes somewhere in a story, each number as often; between that things are taken and dropped.
pub const MOVES: RangeInclusive<usize> = 2..=10;

/// What a question asks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Asks {
    /// Where a person is: where she last went.
    Person,
    /// Where an object is: where the one who last took it is, or was when she dropped it.
    Object,
}

/// A story and a question about it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Story {
    /// Sentences, a space between them.
    pub context: String,
    /// What is asked.
    pub question: String,
    /// A place.
    pub answer: String,
    /// How many facts it takes.
    pub asks: Asks,
}

impl Story {
    /// As a row of a task.
    pub fn row(&self) -> Value {
        let facts = if self.asks == Asks::Person { 1 } else { 2 };
        json!({ "context": self.context, "question": self.question, "answer": self.answer, "facts": facts })
    }

    /// The place that the story names last.
    pub fn last_place(&self) -> &str {
        let words = self.context.split([' ', '.']).rev();
        words.into_iter().find(|word| PLACES.contains(word)).unwrap_or_default()
    }
}

/// Where an object is.
#[derive(Clone, Copy)]
enum Held {
    By(usize),
    At(usize),
}

/// `n` stories, half of them with each kind of question; the same for the same seed. They have so many moves, each number as often: [`MOVES`], or
/// fewer.
pub fn stories(seed: u64, n: usize, moves: &RangeInclusive<usize>) -> Vec<Story> {
    let mut rng = ChaCha8Rng::seed_from_u64(seed);
    let kinds = [Asks::Person, Asks::Object].into_iter().cycle().take(n);
    kinds
        .map(|asks| {
            let n_moves = rng.random_range(moves.clone());
            loop {
                // A story that nothing can be asked about is told anew, as long as before.
                if let Some(story) = story(&mut rng, n_moves, asks) {
                    return story;
                }
            }
        })
        .collect()
}

/// `n` stories that are asked about as they go on, with several questions each: rows of a task whose `turns` follow one another. Of a third of the
/// stories the questions come at the end alone.
pub fn readings(seed: u64, n: usize) -> Vec<Vec<Story>> {
    let mut rng = ChaCha8Rng::seed_from_u64(seed);
    (0..n)
        .map(|_| {
            let n_moves = rng.random_range(MOVES);
            let asked_between = if rng.random_ratio(1, 3) { 0.0 } else { 0.5 };
            reading(&mut rng, n_moves, asked_between)
        })
        .collect()
}

/// A reading as a row of a task.
pub fn reading_row(turns: &[Story]) -> Value {
    let turn = |turn: &Story| json!({ "context": turn.context, "question": turn.question, "answer": turn.answer });
    json!({ "turns": turns.iter().map(turn).collect::<Vec<_>>() })
}

/// Questions at the end of a reading at most.
const LAST_QUESTIONS: usize = 4;
/// Share of the questions of a reading that ask for an object, where one can be asked for.
const ASKS_OBJECT: f64 = 0.8;

fn reading(rng: &mut ChaCha8Rng, n_moves: usize, asked_between: f64) -> Vec<Story> {
    let (mut world, mut sentences, mut turns) = (World::default(), Vec::new(), Vec::new());
    let turn = |sentences: &mut Vec<String>, asks, (question, place): (String, usize)| Story {
        context: std::mem::take(sentences).join(" "),
        question,
        answer: PLACES[place].to_owned(),
        asks,
    };
    while world.n_moves < n_moves {
        sentences.push(world.goes_on(rng));
        let [people, objects] = [Asks::Person, Asks::Object].map(|asks| world.known(asks));
        let asks = if !objects.is_empty() && rng.random_bool(ASKS_OBJECT) { Asks::Object } else { Asks::Person };
        let known = if asks == Asks::Object { objects } else { people };
        if let Some(question) = known.choose(rng).filter(|_| rng.random_bool(asked_between)) {
            turns.push(turn(&mut sentences, asks, question.clone()));
        }
    }
    let [mut people, mut objects] = [Asks::Person, Asks::Object].map(|asks| world.known(asks));
    people.shuffle(rng);
    objects.shuffle(rng);
    for _ in 0..LAST_QUESTIONS {
        let object = if people.is_empty() || rng.random_bool(ASKS_OBJECT) { objects.pop() } else { None };
        let asks = if object.is_some() { Asks::Object } else { Asks::Person };
        let Some(question) = object.or_else(|| people.pop()) else { break };
        turns.push(turn(&mut sentences, asks, question));
    }
    turns
}

fn story(rng: &mut ChaCha8Rng, n_moves: usize, asks: Asks) -> Option<Story> {
    let (mut world, mut sentences) = (World::default(), Vec::new());
    while world.n_moves < n_moves {
        sentences.push(world.goes_on(rng));
    }
    let (question, place) = world.known(asks).choose(rng)?.clone();
    Some(Story { context: sentences.join(" "), question, answer: PLACES[place].to_owned(), asks })
}

/// What is true in a story as far as it has gone.
#[derive(Default)]
struct World {
    places: BTreeMap<usize, usize>,
    objects: BTreeMap<usize, Held>,
    n_moves: usize,
}

impl World {
    /// What happens next.
    fn goes_on(&mut self, rng: &mut ChaCha8Rng) -> String {
        let Self { places, objects, n_moves } = self;
        loop {
            let held: Vec<(usize, usize)> = objects.iter().filter_map(|(object, held)| Some((*object, as_holder(*held)?))).collect();
            let free: Vec<usize> = (0..OBJECTS.len()).filter(|object| !held.iter().any(|(other, _)| other == object)).collect();
            match rng.random_range(0..10) {
                0..2 if !held.is_empty() => {
                    let Some((object, person)) = held.choose(rng).copied() else { continue };
                    // Where somebody is who has gone nowhere yet is not known, and so is then what she leaves there.
                    match places.get(&person) {
                        Some(place) => drop(objects.insert(object, Held::At(*place))),
                        None => drop(objects.remove(&object)),
                    }
                    return format!("{} dropped the {}.", PEOPLE[person], OBJECTS[object]);
                }
                2..5 if !free.is_empty() => {
                    let Some(object) = free.choose(rng).copied() else { continue };
                    // What lies somewhere is taken by one who is there.
                    let there: Vec<usize> = match objects.get(&object) {
                        Some(Held::At(place)) => (0..PEOPLE.len()).filter(|person| places.get(person) == Some(place)).collect(),
                        _ => (0..PEOPLE.len()).collect(),
                    };
                    let Some(person) = there.choose(rng).copied() else { continue };
                    objects.insert(object, Held::By(person));
                    return format!("{} took the {}.", PEOPLE[person], OBJECTS[object]);
                }
                _ => {
                    let (person, place) = (rng.random_range(0..PEOPLE.len()), rng.random_range(0..PLACES.len()));
                    places.insert(person, place);
                    *n_moves += 1;
                    return format!("{} went to the {}.", PEOPLE[person], PLACES[place]);
                }
            }
        }
    }

    /// What can be asked, with the place that is the answer.
    fn known(&self, asks: Asks) -> Vec<(String, usize)> {
        match asks {
            Asks::Person => self.places.iter().map(|(person, place)| (format!("Where is {}?", PEOPLE[*person]), *place)).collect(),
            Asks::Object => {
                let place = |held: &Held| match held {
                    Held::By(person) => self.places.get(person).copied(),
                    Held::At(place) => Some(*place),
                };
                let asked = |(object, held): (&usize, &Held)| Some((format!("Where is the {}?", OBJECTS[*object]), place(held)?));
                self.objects.iter().filter_map(asked).collect()
            }
        }
    }
}

fn as_holder(held: Held) -> Option<usize> {
    match held {
        Held::By(person) => Some(person),
        Held::At(_) => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The answer as a reader finds it, from the sentences alone.
    fn read(story: &Story) -> Option<String> {
        let (mut places, mut holders, mut lying) = (BTreeMap::new(), BTreeMap::new(), BTreeMap::new());
        for sentence in story.context.split_inclusive('.') {
            let words: Vec<&str> = sentence.trim().trim_end_matches('.').split(' ').collect();
            match words.as_slice() {
                [person, "went", "to", "the", place] => drop(places.insert(*person, *place)),
                [person, "took", "the", object] => {
                    lying.remove(object);
                    holders.insert(*object, *person);
                }
                [person, "dropped", "the", object] => {
                    assert_eq!(holders.remove(object), Some(*person), "{story:?}");
                    if let Some(place) = places.get(person) {
                        lying.insert(*object, *place);
                    }
                }
                other => panic!("{other:?}"),
            }
        }
        let asked = story.question.trim_end_matches('?').split(' ').next_back()?;
        let place = match story.asks {
            Asks::Person => places.get(asked),
            Asks::Object => lying.get(asked).or_else(|| places.get(holders.get(asked)?)),
        };
        place.map(|place| (*place).to_owned())
    }

    #[test]
    fn answers_follow_from_the_sentences_and_not_from_the_last_place() {
        let stories = stories(1, 20_000, &MOVES);
        assert_eq!(stories[..100], super::stories(1, 100, &MOVES));
        assert!(stories.iter().all(|story| read(story).as_deref() == Some(&story.answer)));
        for asks in [Asks::Person, Asks::Object] {
            let of_kind: Vec<_> = stories.iter().filter(|story| story.asks == asks).collect();
            let share = of_kind.iter().filter(|story| story.last_place() == story.answer).count() as f64 / of_kind.len() as f64;
            println!("{asks:?}: the last place is right for {share:.3}");
            assert!(share < 0.4, "{asks:?}: {share}");
        }
    }

    #[test]
    fn a_reading_asks_about_all_that_has_been_told() {
        let readings = readings(1, 5_000);
        assert_eq!(readings[..100], super::readings(1, 100));
        let mut n = BTreeMap::<&str, usize>::new();
        for turns in &readings {
            let mut told = String::new();
            for (place, turn) in turns.iter().enumerate() {
                told += if told.is_empty() || turn.context.is_empty() { "" } else { " " };
                told += &turn.context;
                assert_eq!(read(&Story { context: told.clone(), ..turn.clone() }).as_deref(), Some(&*turn.answer), "{turns:?}");
                *n.entry(if turn.asks == Asks::Object { "objects" } else { "people" }).or_default() += 1;
                *n.entry("first").or_default() += usize::from(place == 0);
                *n.entry("at the end alone").or_default() +=
                    usize::from(place == 0 && turns[1..].iter().all(|turn| turn.context.is_empty()));
            }
            assert!(MOVES.contains(&told.matches(" went ").count()));
        }
        println!("{n:?}");
        assert_eq!(n["first"], readings.len());
        assert!(n["people"] > 10_000 && n["objects"] > 10_000 && n["at the end alone"] > 1_500);
    }

    #[test]
    fn stories_have_two_to_ten_moves_each_as_often() {
        let mut counts = BTreeMap::<usize, usize>::new();
        for story in stories(2, 20_000, &MOVES) {
            *counts.entry(story.context.matches(" went ").count()).or_default() += 1;
        }
        println!("{counts:?}");
        assert!(counts.keys().all(|n| MOVES.contains(n)) && counts.len() == 9);
        // A ninth of 20,000 has a standard deviation of 44.
        assert!(counts.values().all(|n| n.abs_diff(2222) < 200));
    }
}
