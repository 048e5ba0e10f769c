//! Answer files: the log-probabilities of consecutive queries in Parquet, with a checksum in the file's name.

use std::ops::Range;
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
use surprisal_dialect::check_logprobs;

use crate::plan::PlannedQuery;
use crate::store::answer_name::AnswerName;
use crate::store::columns::{OptionalColumn, key_values, write};
use crate::store::provenance::Provenance;

/// The schema: one row per target token. `step` is the query's index in the plan; `kind` is `whole`, `crossed`,
/// `marginal`, `joint` or `joint_marginal`; `y` is the document that the token is from; `x` is the document whose `x` is
/// the context of a crossed query, or the other document of a joint one; `position` is the token's position in document
/// `y`.
const SCHEMA: &str = "message answers {
    required int32 step;
    required binary kind (UTF8);
    optional int32 x;
    required int32 y;
    optional int32 split;
    required int32 position;
    required float logprob;
}";

/// The version of the schema, in the metadata. It changes if a column changes its name or type, or its meaning for a
/// kind of queries. New kinds do not change it, because readers select the kinds that they know. Files of earlier
/// versions of this program state no version, and have the columns of version 1.
const SCHEMA_VERSION: &str = "1";

/// The name of the metadata entry that contains [`Provenance::key`].
pub(crate) const KEY: &str = "answers";

/// Indices of the columns that are read back.
const STEP_COLUMN: usize = 0;
const LOGPROB_COLUMN: usize = 6;

/// Answers to consecutive queries of a plan.
#[derive(Debug, PartialEq)]
pub(crate) struct AnswerFile {
    /// The first query's index in the plan.
    pub(crate) first: usize,
    /// Log-probabilities in nats: one vector per query, one value per target token.
    pub(crate) answers: Vec<Vec<f32>>,
}

/// The reason why a file's answers cannot be used.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Damage {
    #[error("not a Parquet file of answers: {0}")]
    Parquet(#[from] ParquetError),
    #[error("checksum mismatch: the name states {expected}, but the content has {actual}")]
    Checksum { expected: String, actual: String },
    #[error("the answers belong to another run: their key is {actual:?}, but this run has {expected:?}")]
    Key { expected: String, actual: String },
    #[error("the queries do not match the plan: {0}")]
    Queries(String),
    #[error("{0}")]
    Value(String),
    #[error("the name states queries {0:?}, but the file answers {1:?}")]
    Name(Range<usize>, Range<usize>),
}

impl AnswerFile {
    /// Encodes the answers and their provenance as a file. `queries` are the answered queries: those of the plan from
    /// `first` on.
    pub(crate) fn encode(&self, provenance: &Provenance, queries: &[PlannedQuery]) -> Result<Vec<u8>, ParquetError> {
        // Log-probabilities rarely repeat, so a dictionary does not help.
        let properties = WriterProperties::builder()
            .set_key_value_metadata(Some(metadata(provenance)))
            .set_compression(Compression::UNCOMPRESSED)
            .set_column_dictionary_enabled("logprob".into(), false)
            .set_column_encoding("logprob".into(), Encoding::PLAIN);
        let schema = Arc::new(parse_message_type(SCHEMA)?);
        let mut bytes = Vec::new();
        let mut writer = SerializedFileWriter::new(&mut bytes, schema, Arc::new(properties.build()))?;
        let mut group = writer.next_row_group()?;
        Columns::new(self, queries).write(&mut group)?;
        group.close()?;
        writer.close()?;
        Ok(bytes)
    }

    /// Returns the name of this file, if it has these bytes.
    pub(crate) fn name(&self, bytes: &[u8]) -> AnswerName {
        AnswerName { range: self.range(), checksum: Self::checksum(bytes) }
    }

    /// Returns the checksum of a file's bytes. [`decode`](Self::decode) parses only bytes that match it.
    fn checksum(bytes: &[u8]) -> String {
        blake3::hash(bytes).to_hex()[..16].to_owned()
    }

    /// Returns the indices of the answered queries.
    pub(crate) fn range(&self) -> Range<usize> {
        self.first..self.first + self.answers.len()
    }

    /// Decodes a file that [`encode`](Self::encode) wrote for the same key. `plan` contains all queries of the plan.
    pub(crate) fn decode(bytes: Vec<u8>, name: &AnswerName, key: &str, plan: &[PlannedQuery]) -> Result<Self, Damage> {
        let file = Self::decode_any_plan(bytes, name, key)?;
        let Some(queries) = plan.get(file.range()) else {
            let reason = format!("the file answers queries {:?}, but the plan has {}", file.range(), plan.len());
            return Err(Damage::Queries(reason));
        };
        for (index, (query, answer)) in queries.iter().zip(&file.answers).enumerate() {
            let (query, expected, actual) = (file.first + index, query.target_length(), answer.len());
            if actual != expected {
                let reason = format!("query {query} has {actual} log-probabilities; it must have {expected}");
                return Err(Damage::Queries(reason));
            }
        }
        Ok(file)
    }

    /// Decodes a file like [`decode`](Self::decode), but does not check that its answers have the lengths in the plan.
    pub(crate) fn decode_any_plan(bytes: Vec<u8>, name: &AnswerName, key: &str) -> Result<Self, Damage> {
        let actual = Self::checksum(&bytes);
        if actual != name.checksum {
            return Err(Damage::Checksum { expected: name.checksum.clone(), actual });
        }
        let reader = SerializedFileReader::new(bytes::Bytes::from(bytes))?;
        let mut metadata = reader.metadata().file_metadata().key_value_metadata().into_iter().flatten();
        let actual = metadata.find(|pair| pair.key == KEY).and_then(|pair| pair.value.as_deref()).unwrap_or_default();
        if actual != key {
            return Err(Damage::Key { expected: key.to_owned(), actual: actual.to_owned() });
        }
        // The query index of each row; a query has one row per target token.
        let indices = read::<Int32Type>(&reader, STEP_COLUMN)?;
        let logprobs = read::<FloatType>(&reader, LOGPROB_COLUMN)?;
        let first = indices.first().and_then(|&index| usize::try_from(index).ok());
        let first = first.ok_or_else(|| {
            Damage::Queries(format!("the first query is {:?}; it must be at least 0", indices.first()))
        })?;
        if indices.len() != logprobs.len() {
            let (indices, logprobs) = (indices.len(), logprobs.len());
            let reason = format!("there are {indices} query indices, but {logprobs} log-probabilities");
            return Err(Damage::Queries(reason));
        }
        check_logprobs(logprobs.iter().copied().map(Some)).map_err(Damage::Value)?;
        let (mut answers, mut logprobs) = (Vec::new(), logprobs.into_iter());
        for rows in indices.chunk_by(|a, b| a == b) {
            let expected = first + answers.len();
            if usize::try_from(rows[0]) != Ok(expected) {
                let reason = format!("expected query {expected}, but found query {}", rows[0]);
                return Err(Damage::Queries(reason));
            }
            answers.push(logprobs.by_ref().take(rows.len()).collect());
        }
        let file = Self { first, answers };
        match file.range() == name.range {
            true => Ok(file),
            false => Err(Damage::Name(name.range.clone(), file.range())),
        }
    }
}

/// Returns the file's metadata: the provenance of its answers.
fn metadata(provenance: &Provenance) -> Vec<KeyValue> {
    let Provenance { key, version, model, fingerprint, config, seed } = provenance;
    let seed = seed.to_string();
    key_values(&[
        ("schema", "answers"),
        ("schema_version", SCHEMA_VERSION),
        (KEY, key.as_str()),
        ("version", version),
        ("model", model),
        ("fingerprint", fingerprint),
        ("config", config),
        ("seed", &seed),
    ])
}

/// The columns of a file, with one entry for each target token.
#[derive(Default)]
struct Columns {
    step: Vec<i32>,
    kind: Vec<ByteArray>,
    x: OptionalColumn<i32>,
    y: Vec<i32>,
    split: OptionalColumn<i32>,
    position: Vec<i32>,
    logprob: Vec<f32>,
}

impl Columns {
    fn new(file: &AnswerFile, queries: &[PlannedQuery]) -> Self {
        let mut columns = Self::default();
        for (index, (query, answer)) in queries.iter().zip(&file.answers).enumerate() {
            let step = file.first + index;
            match *query {
                PlannedQuery::Whole { document, .. } => columns.add(step, "whole", None, document, None, answer),
                PlannedQuery::Crossed { x, y, split, .. } => {
                    columns.add(step, "crossed", Some(x), y, Some(split), answer);
                }
                PlannedQuery::Marginal { document, split, .. } => {
                    columns.add(step, "marginal", None, document, Some(split), answer);
                }
                PlannedQuery::Joint { documents, split, .. } => {
                    columns.add_joint(step, "joint", documents, split, answer);
                }
                PlannedQuery::JointMarginal { documents, split, .. } => {
                    columns.add_joint(step, "joint_marginal", documents, split, answer);
                }
            }
        }
        columns
    }

    /// Adds the answer to a query about two documents, which are equally long.
    fn add_joint(&mut self, step: usize, kind: &str, [a, b]: [usize; 2], split: usize, answer: &[f32]) {
        let (of_a, of_b) = answer.split_at(answer.len() / 2);
        self.add(step, kind, Some(b), a, Some(split), of_a);
        self.add(step, kind, Some(a), b, Some(split), of_b);
    }

    /// Adds the log-probabilities of consecutive tokens of document `y`.
    fn add(&mut self, step: usize, kind: &str, x: Option<usize>, y: usize, split: Option<usize>, logprobs: &[f32]) {
        let kind = ByteArray::from(kind);
        for (offset, &logprob) in logprobs.iter().enumerate() {
            self.step.push(step as i32);
            self.kind.push(kind.clone());
            self.x.push(x.map(|x| x as i32));
            self.y.push(y as i32);
            self.split.push(split.map(|split| split as i32));
            self.position.push((split.unwrap_or(0) + offset) as i32);
            self.logprob.push(logprob);
        }
    }

    /// Writes the columns in the schema's order.
    fn write(&self, group: &mut SerializedRowGroupWriter<'_, &mut Vec<u8>>) -> Result<(), ParquetError> {
        write::<Int32Type>(group, &self.step, None)?;
        write::<ByteArrayType>(group, &self.kind, None)?;
        self.x.write::<Int32Type>(group)?;
        write::<Int32Type>(group, &self.y, None)?;
        self.split.write::<Int32Type>(group)?;
        write::<Int32Type>(group, &self.position, None)?;
        write::<FloatType>(group, &self.logprob, None)
    }
}

/// Reads one column of the file's only row group.
fn read<T: DataType>(reader: &SerializedFileReader<bytes::Bytes>, column: usize) -> Result<Vec<T::T>, ParquetError> {
    if reader.num_row_groups() != 1 || reader.metadata().file_metadata().schema_descr().num_columns() <= column {
        return Err(ParquetError::General("the columns or row groups are not those of an answer file".to_owned()));
    }
    let group = reader.get_row_group(0)?;
    let rows = usize::try_from(group.metadata().num_rows()).unwrap_or(0);
    let descriptor = group.metadata().column(column).column_type();
    if descriptor != T::get_physical_type() {
        return Err(ParquetError::General(format!("column {column} has type {descriptor}")));
    }
    let mut values = Vec::new();
    get_typed_column_reader::<T>(group.get_column_reader(column)?).read_records(rows, None, None, &mut values)?;
    Ok(values)
}

#[cfg(test)]
mod tests {
    use parquet::record::{Row, RowAccessor};

    use super::*;

    fn provenance() -> Provenance {
        let [key, model, fingerprint, config] = ["key", "llama", "f00d", "c0de"].map(str::to_owned);
        Provenance { key, version: "1.2.3", model, fingerprint, config, seed: u64::MAX }
    }

    fn answer_file() -> (Vec<PlannedQuery>, AnswerFile) {
        let queries = vec![
            PlannedQuery::Whole { document: 3, end: 4 },
            PlannedQuery::Crossed { x: 1, y: 0, split: 2, end: 4 },
            PlannedQuery::Marginal { document: 0, split: 1, end: 2 },
        ];
        let answers = vec![vec![-1.5, -0.0, f32::MIN_POSITIVE, -7e-30], vec![-2.0, f32::MIN], vec![-0.1]];
        (queries, AnswerFile { first: 2, answers })
    }

    #[test]
    fn an_answer_file_is_read_back_bit_for_bit() {
        let (queries, file) = answer_file();
        let plan = [&queries[..2], &queries[..]].concat();
        let bytes = file.encode(&provenance(), &queries).unwrap();
        let name = file.name(&bytes);
        let decode = |key, plan| AnswerFile::decode(bytes.clone(), &name, key, plan);
        assert_eq!(decode("key", &plan).unwrap(), file);
        for (key, plan, expected) in [
            ("other", &plan[..], "another run: their key is \"key\", but this run has \"other\""),
            ("key", &plan[..4], "the file answers queries 2..5, but the plan has 4"),
            ("key", &[&plan[1..], &plan[..1]].concat(), "query 2 has 4 log-probabilities; it must have 2"),
        ] {
            let error = decode(key, plan).unwrap_err().to_string();
            assert!(error.contains(expected), "{error}");
        }
        let renamed = AnswerName { range: 2..6, ..name.clone() };
        let error = AnswerFile::decode(bytes.clone(), &renamed, "key", &plan).unwrap_err().to_string();
        assert_eq!(error, "the name states queries 2..6, but the file answers 2..5");
        let reader = SerializedFileReader::new(bytes::Bytes::from(bytes)).unwrap();
        let facts = reader.metadata().file_metadata().key_value_metadata().unwrap();
        let fact = |name: &str| facts.iter().find(|fact| fact.key == name).unwrap().value.as_deref().unwrap();
        assert_eq!(["version", "model", "fingerprint", "config"].map(fact), ["1.2.3", "llama", "f00d", "c0de"]);
        assert_eq!(["schema", "schema_version"].map(fact), ["answers", "1"]);
        assert_eq!(fact("seed"), u64::MAX.to_string());
    }

    /// The answer to a query about two documents has the rows of one document, then those of the other.
    #[test]
    fn joint_answers_have_rows_of_both_documents() {
        let queries = [
            PlannedQuery::Joint { documents: [5, 2], split: 3, end: 5 },
            PlannedQuery::JointMarginal { documents: [5, 2], split: 3, end: 4 },
        ];
        let file = AnswerFile { first: 7, answers: vec![vec![-1.0, -2.0, -3.0, -4.0], vec![-5.0, -6.0]] };
        let bytes = file.encode(&provenance(), &queries).unwrap();
        let reader = SerializedFileReader::new(bytes::Bytes::from(bytes)).unwrap();
        let row = |row: Row| {
            let ints = [0, 2, 3, 4, 5].map(|column| row.get_int(column).unwrap());
            (row.get_string(1).unwrap().clone(), ints, row.get_float(6).unwrap())
        };
        let rows: Vec<_> = reader.get_row_iter(None).unwrap().map(|found| row(found.unwrap())).collect();
        // Step, x, y, split and position.
        let expected = [
            ("joint", [7, 2, 5, 3, 3], -1.0),
            ("joint", [7, 2, 5, 3, 4], -2.0),
            ("joint", [7, 5, 2, 3, 3], -3.0),
            ("joint", [7, 5, 2, 3, 4], -4.0),
            ("joint_marginal", [8, 2, 5, 3, 3], -5.0),
            ("joint_marginal", [8, 5, 2, 3, 3], -6.0),
        ];
        assert_eq!(rows, expected.map(|(kind, ints, logprob)| (kind.to_owned(), ints, logprob)));
        let plan = [&vec![PlannedQuery::Whole { document: 0, end: 1 }; 7][..], &queries].concat();
        let bytes = file.encode(&provenance(), &queries).unwrap();
        assert_eq!(AnswerFile::decode(bytes.clone(), &file.name(&bytes), "key", &plan).unwrap(), file);
    }

    #[test]
    fn damage_is_found_before_a_file_is_parsed() {
        let (queries, file) = answer_file();
        let bytes = file.encode(&provenance(), &queries).unwrap();
        let name = file.name(&bytes);
        let is_damaged =
            |bytes: Vec<u8>| matches!(AnswerFile::decode(bytes, &name, "key", &queries), Err(Damage::Checksum { .. }));
        let other = AnswerName { checksum: "0123456789abcdef".to_owned(), ..name.clone() };
        let error = AnswerFile::decode(bytes.clone(), &other, "key", &queries).unwrap_err().to_string();
        let actual = &name.checksum;
        let expected = format!("the name states 0123456789abcdef, but the content has {actual}");
        assert!(error.ends_with(&expected), "{error}");
        for place in 0..bytes.len() {
            let mut damaged = bytes.clone();
            damaged[place] ^= 1;
            assert!(is_damaged(damaged), "byte {place}");
            assert!(is_damaged(bytes[..place].to_vec()), "{place} bytes");
        }
    }
}
