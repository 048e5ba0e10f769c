//! A shard of answers: the log-probabilities of consecutive steps in a Parquet file, whose name has its checksum.

use std::sync::Arc;

use parquet::basic::{Compression, Encoding};
use parquet::column::reader::get_typed_column_reader;
use parquet::data_type::{ByteArray, ByteArrayType, DataType, FloatType, Int32Type};
use parquet::errors::ParquetError;
use parquet::file::metadata::KeyValue;
use parquet::file::properties::WriterProperties;
use parquet::file::reader::{FileReader, SerializedFileReader};
use parquet::file::writer::{SerializedFileWriter, SerializedRowGroupWriter};
use parquet::schema::parser::parse_message_type;

use crate::plan::Step;
use crate::store::provenance::Provenance;

/// One row a target token. `kind` is `whole`, `crossed` or `marginal`; `x` is the document before a crossed `y`; `position` is the
/// token's place in document `y`.
const SCHEMA: &str = "message answers {
    required int32 step;
    required binary kind (UTF8);
    optional int32 x;
    required int32 y;
    optional int32 split;
    required int32 position;
    required float logprob;
}";

/// Under which a file says what its answers are the answers of.
const KEY: &str = "answers";

/// Places of the columns that are read back.
const STEP: usize = 0;
const LOGPROB: usize = 6;

/// The answers to consecutive steps of a plan.
#[derive(Debug, PartialEq)]
pub(crate) struct Shard {
    /// The first step's place in the plan.
    pub(crate) first: usize,
    /// One vector a step: nats, one a target token.
    pub(crate) answers: Vec<Vec<f32>>,
}

/// Why a file is not the shard it should be.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Damage {
    #[error("it is not a Parquet file of answers: {0}")]
    Parquet(#[from] ParquetError),
    #[error("its name does not have its checksum: {0} of it")]
    Checksum(String),
    #[error("its answers are those of another run")]
    Key,
    #[error("its steps are not those of the plan")]
    Steps,
}

impl Shard {
    /// The file of these answers to `steps`, which are the plan's from `first` on; it says where they are from.
    pub(crate) fn encode(&self, provenance: &Provenance, steps: &[Step]) -> Result<Vec<u8>, ParquetError> {
        let Provenance { key, version, model, fingerprint, config, seed } = provenance;
        let seed = seed.to_string();
        let facts = [(KEY, key.as_str()), ("version", version), ("model", model), ("fingerprint", fingerprint)];
        let facts = facts.into_iter().chain([("config", config.as_str()), ("seed", &seed)]);
        let facts = facts.map(|(name, value)| KeyValue::new(name.to_owned(), value.to_owned())).collect();
        // Log-probabilities are noise to a dictionary.
        let properties = WriterProperties::builder()
            .set_key_value_metadata(Some(facts))
            .set_compression(Compression::UNCOMPRESSED)
            .set_column_dictionary_enabled("logprob".into(), false)
            .set_column_encoding("logprob".into(), Encoding::PLAIN);
        let schema = Arc::new(parse_message_type(SCHEMA)?);
        let mut bytes = Vec::new();
        let mut writer = SerializedFileWriter::new(&mut bytes, schema, Arc::new(properties.build()))?;
        let mut group = writer.next_row_group()?;
        let of_rows = |of: &dyn Fn(usize, usize) -> i32| -> Vec<i32> {
            let lengths = self.answers.iter().map(Vec::len).enumerate();
            lengths.flat_map(|(step, length)| (0..length).map(move |place| of(step, place))).collect()
        };
        let places: Vec<Place> = steps.iter().map(Place::of).collect();
        let kinds: Vec<ByteArray> = (self.answers.iter().zip(&places))
            .flat_map(|(answer, place)| std::iter::repeat_n(ByteArray::from(place.kind), answer.len()))
            .collect();
        let optional = |value: fn(&Place) -> Option<usize>| {
            let levels: Vec<i16> = (self.answers.iter().zip(&places))
                .flat_map(|(answer, place)| std::iter::repeat_n(i16::from(value(place).is_some()), answer.len()))
                .collect();
            let values: Vec<i32> = (self.answers.iter().zip(&places))
                .flat_map(|(answer, place)| value(place).into_iter().flat_map(|value| vec![value as i32; answer.len()]))
                .collect();
            (values, levels)
        };
        write::<Int32Type>(&mut group, &of_rows(&|step, _| (self.first + step) as i32), None)?;
        write::<ByteArrayType>(&mut group, &kinds, None)?;
        let (values, levels) = optional(|place| place.x);
        write::<Int32Type>(&mut group, &values, Some(&levels))?;
        write::<Int32Type>(&mut group, &of_rows(&|step, _| places[step].y as i32), None)?;
        let (values, levels) = optional(|place| place.split);
        write::<Int32Type>(&mut group, &values, Some(&levels))?;
        let position = |step: usize, place: usize| (places[step].split.unwrap_or(0) + place) as i32;
        write::<Int32Type>(&mut group, &of_rows(&position), None)?;
        write::<FloatType>(&mut group, &self.answers.concat(), None)?;
        group.close()?;
        writer.close()?;
        Ok(bytes)
    }

    /// What the name of its file ends in: bytes are not read as Parquet unless they are those that were written.
    pub(crate) fn checksum(bytes: &[u8]) -> String {
        blake3::hash(bytes).to_hex()[..16].to_owned()
    }

    /// Reads what [`encode`](Self::encode) wrote for the same key, as answers to steps of the whole plan.
    pub(crate) fn decode(bytes: Vec<u8>, checksum: &str, key: &str, plan: &[Step]) -> Result<Self, Damage> {
        let actual = Self::checksum(&bytes);
        if actual != checksum {
            return Err(Damage::Checksum(actual));
        }
        let reader = SerializedFileReader::new(bytes::Bytes::from(bytes))?;
        let mut metadata = reader.metadata().file_metadata().key_value_metadata().into_iter().flatten();
        if metadata.find(|pair| pair.key == KEY).and_then(|pair| pair.value.as_deref()) != Some(key) {
            return Err(Damage::Key);
        }
        let numbers = read::<Int32Type>(&reader, STEP)?;
        let mut logprobs = read::<FloatType>(&reader, LOGPROB)?.into_iter();
        let first = numbers.first().and_then(|&step| usize::try_from(step).ok()).ok_or(Damage::Steps)?;
        let count = numbers.chunk_by(|a, b| a == b).count();
        let steps = plan.get(first..first.saturating_add(count)).ok_or(Damage::Steps)?;
        if !numbers.chunk_by(|a, b| a == b).zip(steps).all(|(rows, step)| rows.len() == step.target_length()) {
            return Err(Damage::Steps);
        }
        let answers = steps.iter().map(|step| logprobs.by_ref().take(step.target_length()).collect()).collect();
        Ok(Self { first, answers })
    }
}

/// A step, as columns say it.
struct Place {
    kind: &'static str,
    x: Option<usize>,
    y: usize,
    split: Option<usize>,
}

impl Place {
    fn of(step: &Step) -> Self {
        match *step {
            Step::Whole { document, .. } => Self { kind: "whole", x: None, y: document, split: None },
            Step::Crossed { x, y, split, .. } => Self { kind: "crossed", x: Some(x), y, split: Some(split) },
            Step::Marginal { document, split, .. } => {
                Self { kind: "marginal", x: None, y: document, split: Some(split) }
            }
        }
    }
}

fn write<T: DataType>(
    group: &mut SerializedRowGroupWriter<'_, &mut Vec<u8>>,
    values: &[T::T],
    levels: Option<&[i16]>,
) -> Result<(), ParquetError> {
    let missing = || ParquetError::General("the schema has fewer columns than are written".to_owned());
    let mut column = group.next_column()?.ok_or_else(missing)?;
    column.typed::<T>().write_batch(values, levels, None)?;
    column.close()
}

fn read<T: DataType>(reader: &SerializedFileReader<bytes::Bytes>, column: usize) -> Result<Vec<T::T>, ParquetError> {
    if reader.num_row_groups() != 1 || reader.metadata().file_metadata().schema_descr().num_columns() <= column {
        return Err(ParquetError::General("other columns or row groups than answers have".to_owned()));
    }
    let group = reader.get_row_group(0)?;
    let rows = usize::try_from(group.metadata().num_rows()).unwrap_or(0);
    let descriptor = group.metadata().column(column).column_type();
    if descriptor != T::get_physical_type() {
        return Err(ParquetError::General(format!("column {column} is of type {descriptor}")));
    }
    let mut values = Vec::new();
    get_typed_column_reader::<T>(group.get_column_reader(column)?).read_records(rows, None, None, &mut values)?;
    Ok(values)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn provenance() -> Provenance {
        let [key, model, fingerprint, config] = ["key", "llama", "f00d", "c0de"].map(str::to_owned);
        Provenance { key, version: "1.2.3", model, fingerprint, config, seed: u64::MAX }
    }

    fn shard() -> (Vec<Step>, Shard) {
        let steps = vec![
            Step::Whole { document: 3, end: 4 },
            Step::Crossed { x: 1, y: 0, split: 2, end: 4 },
            Step::Marginal { document: 0, split: 1, end: 2 },
        ];
        let answers = vec![vec![-1.5, -0.0, f32::MIN_POSITIVE, -7e-30], vec![-2.0, f32::NEG_INFINITY], vec![-0.1]];
        (steps, Shard { first: 2, answers })
    }

    #[test]
    fn a_shard_is_read_back_to_the_bit() {
        let (steps, shard) = shard();
        let plan = [&steps[..2], &steps[..]].concat();
        let bytes = shard.encode(&provenance(), &steps).unwrap();
        let checksum = Shard::checksum(&bytes);
        let decode = |key, plan| Shard::decode(bytes.clone(), &checksum, key, plan);
        assert_eq!(decode("key", &plan).unwrap(), shard);
        assert!(matches!(decode("other", &plan), Err(Damage::Key)));
        assert!(matches!(decode("key", &plan[1..]), Err(Damage::Steps)));
        let reader = SerializedFileReader::new(bytes::Bytes::from(bytes)).unwrap();
        let facts = reader.metadata().file_metadata().key_value_metadata().unwrap();
        let fact = |name: &str| facts.iter().find(|fact| fact.key == name).unwrap().value.as_deref().unwrap();
        assert_eq!(["version", "model", "fingerprint", "config"].map(fact), ["1.2.3", "llama", "f00d", "c0de"]);
        assert_eq!(fact("seed"), u64::MAX.to_string());
    }

    #[test]
    fn damage_is_found_before_anything_is_read() {
        let (steps, shard) = shard();
        let bytes = shard.encode(&provenance(), &steps).unwrap();
        let checksum = Shard::checksum(&bytes);
        let is_damaged =
            |bytes: Vec<u8>| matches!(Shard::decode(bytes, &checksum, "key", &steps), Err(Damage::Checksum(_)));
        for place in 0..bytes.len() {
            let mut damaged = bytes.clone();
            damaged[place] ^= 1;
            assert!(is_damaged(damaged), "byte {place}");
            assert!(is_damaged(bytes[..place].to_vec()), "{place} bytes");
        }
    }
}
