//! Little stories of who goes where and who takes what, with questions whose answers follow from one fact or from two. Written in the manner
//! of the bAbI tasks 1 and 2 (Weston et al., arXiv:1502.05698).

use std::collections::BTreeMap;
use std::ops::RangeInclusive;

use rand::{RngExt, SeedableRng, seq::IndexedRandom};
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

fn story(rng: &mut ChaCha8Rng, n_moves: usize, asks: Asks) -> Option<Story> {
    let (mut places, mut objects) = (BTreeMap::<usize, usize>::new(), BTreeMap::<usize, Held>::new());
    let mut sentences = Vec::new();
    let mut n_left = n_moves;
    while n_left > 0 {
        let held: Vec<(usize, usize)> = objects.iter().filter_map(|(object, held)| Some((*object, as_holder(*held)?))).collect();
        let free: Vec<usize> = (0..OBJECTS.len()).filter(|object| !held.iter().any(|(other, _)| other == object)).collect();
        let sentence = match rng.random_range(0..10) {
            0..2 if !held.is_empty() => {
                let (object, person) = *held.choose(rng)?;
                // Where somebody is who has gone nowhere yet is not known, and so is then what she leaves there.
                match places.get(&person) {
                    Some(place) => drop(objects.insert(object, Held::At(*place))),
                    None => drop(objects.remove(&object)),
                }
                format!("{} dropped the {}.", PEOPLE[person], OBJECTS[object])
            }
            2..5 if !free.is_empty() => {
                let object = *free.choose(rng)?;
                // What lies somewhere is taken by one who is there.
                let there: Vec<usize> = match objects.get(&object) {
                    Some(Held::At(place)) => (0..PEOPLE.len()).filter(|person| places.get(person) == Some(place)).collect(),
                    _ => (0..PEOPLE.len()).collect(),
                };
                let Some(person) = there.choose(rng).copied() else { continue };
                objects.insert(object, Held::By(person));
                format!("{} took the {}.", PEOPLE[person], OBJECTS[object])
            }
            _ => {
                let (person, place) = (rng.random_range(0..PEOPLE.len()), rng.random_range(0..PLACES.len()));
                places.insert(person, place);
                n_left -= 1;
                format!("{} went to the {}.", PEOPLE[person], PLACES[place])
            }
        };
        sentences.push(sentence);
    }
    let (question, place) = match asks {
        Asks::Person => {
            let known: Vec<(&usize, &usize)> = places.iter().collect();
            let (person, place) = known.choose(rng)?;
            (format!("Where is {}?", PEOPLE[**person]), **place)
        }
        Asks::Object => {
            let known: Vec<(usize, usize)> = objects
                .iter()
                .filter_map(|(object, held)| match held {
                    Held::By(person) => Some((*object, *places.get(person)?)),
                    Held::At(place) => Some((*object, *place)),
                })
                .collect();
            let (object, place) = known.choose(rng)?;
            (format!("Where is the {}?", OBJECTS[*object]), *place)
        }
    };
    Some(Story { context: sentences.join(" "), question, answer: PLACES[place].to_owned(), asks })
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
