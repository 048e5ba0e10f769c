//! Tests that valid checkpoints are read and invalid checkpoints are rejected.

use half::{bf16, f16};
use proptest::prelude::*;
use safetensors::tensor::TensorView;

use super::read::SLAB_VALUES;
use super::*;

const CONFIG: &str = r#"{"architectures":["LlamaForCausalLM"],"vocab_size":10,"hidden_size":8,
    "intermediate_size":8,"num_hidden_layers":1,"num_attention_heads":2}"#;

fn write(dir: &Path, name: &str, tensors: &[(&str, Dtype, Vec<usize>, Vec<u8>)]) {
    let views =
        tensors.iter().map(|(name, dtype, shape, data)| (*name, TensorView::new(*dtype, shape.clone(), data).unwrap()));
    std::fs::write(dir.join(name), safetensors::serialize(views, None).unwrap()).unwrap();
    std::fs::write(dir.join("config.json"), CONFIG).unwrap();
}

fn f32s(values: &[f32]) -> Vec<u8> {
    values.iter().flat_map(|x| x.to_le_bytes()).collect()
}

#[test]
fn large_tensors_are_read_in_slabs_of_whole_rows() {
    let dir = tempfile::tempdir().unwrap();
    let (rows, columns) = (SLAB_VALUES / 1000 + 5, 1000);
    let mut values: Vec<f32> = (0..rows * columns).map(|i| i as f32).collect();
    let shape = vec![rows, columns];
    write(dir.path(), "model.safetensors", &[("x", Dtype::F32, shape.clone(), f32s(&values))]);
    let checkpoint = Checkpoint::open(dir.path()).unwrap();
    let mut firsts = Vec::new();
    checkpoint.read_slabs("x", &shape, |first, slab| firsts.push((first, slab.len()))).unwrap();
    assert_eq!(firsts, [(0, (rows - 5) * columns), (rows - 5, 5 * columns)]);
    assert!(checkpoint.tensor_f32("x", &shape).unwrap() == values);

    let last = rows * columns - 1;
    values[last] = f32::NAN;
    write(dir.path(), "model.safetensors", &[("x", Dtype::F32, shape.clone(), f32s(&values))]);
    let error = Checkpoint::open(dir.path()).unwrap().tensor_f32("x", &shape).unwrap_err().to_string();
    assert!(error.contains(&format!("NaN at index {last}")), "{error}");
}

#[test]
fn f32_f16_and_bf16_are_read() {
    let dir = tempfile::tempdir().unwrap();
    let b = [1.5f32, -2.0].iter().flat_map(|&x| bf16::from_f32(x).to_le_bytes()).collect();
    let h = [0.25f32, 3.0].iter().flat_map(|&x| f16::from_f32(x).to_le_bytes()).collect();
    let tensors = [
        ("f", Dtype::F32, vec![1, 2], f32s(&[0.1, 0.2])),
        ("b", Dtype::BF16, vec![2], b),
        ("h", Dtype::F16, vec![2], h),
        ("i", Dtype::I32, vec![1], vec![0; 4]),
        ("n", Dtype::F32, vec![2], f32s(&[1.0, f32::NAN])),
    ];
    write(dir.path(), "model.safetensors", &tensors);
    let checkpoint = Checkpoint::open(dir.path()).unwrap();
    assert_eq!(checkpoint.tensor_f32("f", &[1, 2]).unwrap(), [0.1, 0.2]);
    assert_eq!(checkpoint.tensor_f32("b", &[2]).unwrap(), [1.5, -2.0]);
    assert_eq!(checkpoint.tensor_f32("h", &[2]).unwrap(), [0.25, 3.0]);
    for (name, shape, values) in
        [("b", &[2][..], [1.5, -2.0]), ("h", &[2], [0.25, 3.0]), ("f", &[1, 2], [0.100_097_656, 0.200_195_31])]
    {
        let bytes: Vec<u8> = values.iter().flat_map(|&x| bf16::from_f32(x).to_le_bytes()).collect();
        assert_eq!(checkpoint.tensor_bf16(name, shape).unwrap(), bytes, "{name}");
    }
    assert_eq!(checkpoint.parameters(), 9);
    let message = |name: &str, shape: &[usize]| checkpoint.tensor_f32(name, shape).unwrap_err().to_string();
    assert_eq!(message("f", &[2, 1]), "tensor f: expected shape [2, 1], got [1, 2]");
    assert_eq!(message("i", &[1]), "tensor i: expected f32, f16 or bf16, or FP8 with a quantization_config, got I32");
    assert_eq!(message("n", &[2]), "tensor n: expected finite values, got NaN at index 1");
    assert_eq!(message("g", &[1]), "tensor g is missing from the checkpoint");
}

#[test]
fn shards_are_found_through_the_index_and_only_in_its_folder() {
    let dir = tempfile::tempdir().unwrap();
    write(dir.path(), "a.safetensors", &[("x", Dtype::F32, vec![1], f32s(&[1.0]))]);
    write(dir.path(), "b.safetensors", &[("y", Dtype::F32, vec![1], f32s(&[2.0]))]);
    let index = |map: &str| std::fs::write(dir.path().join("model.safetensors.index.json"), map).unwrap();
    index(r#"{"weight_map":{"x":"a.safetensors","y":"b.safetensors"}}"#);
    let checkpoint = Checkpoint::open(dir.path()).unwrap();
    assert_eq!(checkpoint.tensor_f32("y", &[1]).unwrap(), [2.0]);
    for outside in ["../a.safetensors", "/etc/passwd", "", "..", ".", "/", "a.safetensors/"] {
        index(&format!(r#"{{"weight_map":{{"x":{outside:?}}}}}"#));
        assert!(Checkpoint::open(dir.path()).unwrap_err().to_string().contains("in the same folder"), "{outside}");
    }
}

#[test]
fn a_tensor_in_two_shards_is_rejected() {
    let dir = tempfile::tempdir().unwrap();
    write(dir.path(), "a.safetensors", &[("x", Dtype::F32, vec![1], f32s(&[1.0]))]);
    write(dir.path(), "b.safetensors", &[("x", Dtype::F32, vec![1], f32s(&[2.0]))]);
    let index = r#"{"weight_map":{"x":"a.safetensors","y":"b.safetensors"}}"#;
    std::fs::write(dir.path().join("model.safetensors.index.json"), index).unwrap();
    let error = Checkpoint::open(dir.path()).unwrap_err().to_string();
    assert!(error.contains("b.safetensors: tensor x is also in") && error.contains("a.safetensors"), "{error}");
}

#[test]
fn a_single_file_beside_shards_is_rejected() {
    let dir = tempfile::tempdir().unwrap();
    for file in ["model.safetensors", "a.safetensors"] {
        write(dir.path(), file, &[("x", Dtype::F32, vec![1], f32s(&[1.0]))]);
    }
    let index = |file: &str| {
        let index = format!(r#"{{"weight_map":{{"x":{file:?}}}}}"#);
        std::fs::write(dir.path().join("model.safetensors.index.json"), index).unwrap();
    };
    index("model.safetensors");
    Checkpoint::open(dir.path()).unwrap();
    index("a.safetensors");
    let error = Checkpoint::open(dir.path()).unwrap_err().to_string();
    assert!(error.contains("remove either this file or the index"), "{error}");
}

#[test]
fn an_adapter_is_rejected_with_and_without_weights() {
    let dir = tempfile::tempdir().unwrap();
    let adapter = dir.path().join("adapter_config.json");
    std::fs::write(&adapter, r#"{"base_model_name_or_path": "owner/base", "peft_type": "LORA"}"#).unwrap();
    let message = || Checkpoint::open(dir.path()).unwrap_err().to_string();
    for _ in 0..2 {
        let message = message();
        assert!(message.contains("adapter_config.json: the folder contains an adapter"), "{message}");
        assert!(message.contains("owner/base") && message.contains("merge_and_unload"), "{message}");
        write(dir.path(), "model.safetensors", &[("x", Dtype::F32, vec![1], f32s(&[1.0]))]);
    }
    std::fs::rename(&adapter, dir.path().join("adapter_model.safetensors")).unwrap();
    assert!(message().contains("adapter_model.safetensors: the folder contains an adapter"));
}

#[test]
fn names_with_another_prefix_are_explained() {
    for name in ["embed_tokens.weight", "language_model.model.embed_tokens.weight"] {
        let dir = tempfile::tempdir().unwrap();
        write(dir.path(), "model.safetensors", &[(name, Dtype::F32, vec![10, 8], f32s(&[0.0; 80]))]);
        let error = Checkpoint::open(dir.path()).unwrap().check().unwrap_err().to_string();
        let expected =
            format!("tensor model.embed_tokens.weight is missing from the checkpoint, which has {name} instead");
        assert!(error.starts_with(&expected), "{error}");
    }
}

#[test]
fn scales_are_extra_unless_they_belong_to_an_fp8_weight_or_to_activations() {
    let specs: Vec<_> = expected_tensors(&LlamaConfig::parse(CONFIG).unwrap()).collect();
    let verdict = |extra: &str| {
        let dir = tempfile::tempdir().unwrap();
        let mut tensors = Vec::new();
        for spec in &specs {
            let size = spec.shape.iter().product::<usize>();
            match spec.name.contains("mlp.up_proj") {
                true => tensors.push((spec.name.as_str(), Dtype::F8_E4M3, spec.shape.clone(), vec![0; size])),
                false => tensors.push((spec.name.as_str(), Dtype::F32, spec.shape.clone(), vec![0; 4 * size])),
            }
        }
        for scale in ["model.layers.0.mlp.up_proj.weight_scale", extra] {
            tensors.push((scale, Dtype::F32, vec![1], vec![0; 4]));
        }
        write(dir.path(), "model.safetensors", &tensors);
        let quantized = r#"{"quantization_config":{"quant_method":"fbgemm_fp8"},"#;
        std::fs::write(dir.path().join("config.json"), CONFIG.replacen('{', quantized, 1)).unwrap();
        Checkpoint::open(dir.path()).unwrap().check().map_err(|error| error.to_string())
    };
    for scale in ["mlp.up_proj.input_scale", "mlp.up_proj.input_scale_ub", "self_attn.k_scale", "self_attn.v_scale"] {
        assert_eq!(verdict(&format!("model.layers.0.{scale}")), Ok(()), "{scale}");
    }
    for scale in ["mlp.down_proj.weight_scale", "self_attn.temperature_scale", "mlp.up_proj.weight_scale_2"] {
        let error = verdict(&format!("model.layers.0.{scale}")).unwrap_err();
        assert!(error.contains(scale) && error.contains("not part of the model"), "{error}");
    }
}

/// Opens a checkpoint with `tie_word_embeddings` and only the given tensors.
fn open_tied(tensors: &[(&str, Dtype, Vec<usize>, Vec<u8>)]) -> Checkpoint {
    let dir = tempfile::tempdir().unwrap();
    write(dir.path(), "model.safetensors", tensors);
    let config = CONFIG.replacen('{', r#"{"tie_word_embeddings":true,"#, 1);
    std::fs::write(dir.path().join("config.json"), config).unwrap();
    Checkpoint::open(dir.path()).unwrap()
}

#[test]
fn a_stored_head_is_used_if_it_differs_from_the_embedding() {
    let values: Vec<f32> = (0..80).map(|i| i as f32 / 4.0).collect();
    let mut other = values.clone();
    other[79] += 0.25;
    let f32_bytes = |values: &[f32]| (Dtype::F32, vec![10, 8], f32s(values));
    let bf16_bytes = |values: &[f32]| {
        (Dtype::BF16, vec![10, 8], values.iter().flat_map(|&x| bf16::from_f32(x).to_le_bytes()).collect::<Vec<u8>>())
    };
    let open = |embedding: (Dtype, Vec<usize>, Vec<u8>), head: (Dtype, Vec<usize>, Vec<u8>)| {
        open_tied(&[(EMBEDDING, embedding.0, embedding.1, embedding.2), (HEAD, head.0, head.1, head.2)])
    };
    for (head, tied) in [
        (f32_bytes(&values), true),
        (bf16_bytes(&values), true),
        (f32_bytes(&other), false),
        (bf16_bytes(&other), false),
        ((Dtype::F32, vec![8, 10], f32s(&values)), false),
    ] {
        let checkpoint = open(f32_bytes(&values), head.clone());
        assert_eq!(checkpoint.config().tie_word_embeddings, tied, "{head:?}");
        assert_eq!(expected_tensors(checkpoint.config()).any(|tensor| tensor.name == HEAD), !tied);
    }
    let (equal, different) =
        (open(f32_bytes(&values), f32_bytes(&values)), open(f32_bytes(&values), f32_bytes(&other)));
    assert_ne!(equal.fingerprint().unwrap(), different.fingerprint().unwrap());
    assert_eq!(different.tensor_f32(HEAD, &[10, 8]).unwrap(), other);
}

#[test]
fn a_tied_embedding_may_be_stored_as_the_head() {
    let values: Vec<f32> = (0..80).map(|i| i as f32).collect();
    let checkpoint = open_tied(&[(HEAD, Dtype::F32, vec![10, 8], f32s(&values))]);
    assert!(checkpoint.config().tie_word_embeddings);
    assert_eq!(checkpoint.tensor_f32(EMBEDDING, &[10, 8]).unwrap(), values);
    let error = checkpoint.check().unwrap_err().to_string();
    assert!(error.contains("tensor model.norm.weight is missing"), "{error}");
}

#[test]
fn missing_and_corrupted_weight_files_have_different_errors() {
    let dir = tempfile::tempdir().unwrap();
    std::fs::write(dir.path().join("config.json"), CONFIG).unwrap();
    std::fs::write(dir.path().join("pytorch_model.bin"), "").unwrap();
    let message = || Checkpoint::open(dir.path()).unwrap_err().to_string();
    assert!(message().contains("model.safetensors: no such file"), "{}", message());
    assert!(message().contains("weights must be in safetensors"), "{}", message());
    write(dir.path(), "model.safetensors", &[("x", Dtype::F32, vec![2], f32s(&[1.0; 2]))]);
    let whole = std::fs::read(dir.path().join("model.safetensors")).unwrap();
    for cut in [0, 9, whole.len() - 1] {
        std::fs::write(dir.path().join("model.safetensors"), &whole[..cut]).unwrap();
        assert!(message().contains("model.safetensors: ") && message().contains("download it again"), "{}", message());
    }
}

#[test]
fn missing_misshapen_and_extra_tensors_are_named() {
    let specs: Vec<_> = expected_tensors(&LlamaConfig::parse(CONFIG).unwrap()).collect();
    type Listed = Vec<(String, Vec<usize>)>;
    let verdict = |change: &dyn Fn(&mut Listed)| {
        let mut list: Vec<_> = specs.iter().map(|spec| (spec.name.clone(), spec.shape.clone())).collect();
        change(&mut list);
        let dir = tempfile::tempdir().unwrap();
        let tensor = |(name, shape): &(String, Vec<usize>)| {
            (name.clone(), Dtype::F32, shape.clone(), vec![0; 4 * shape.iter().product::<usize>()])
        };
        let owned: Vec<_> = list.iter().map(tensor).collect();
        let named: Vec<_> = owned
            .iter()
            .map(|(name, dtype, shape, data)| (name.as_str(), *dtype, shape.clone(), data.clone()))
            .collect();
        write(dir.path(), "model.safetensors", &named);
        Checkpoint::open(dir.path()).unwrap().check().map_err(|error| error.to_string())
    };
    assert_eq!(verdict(&|_| {}), Ok(()));
    assert_eq!(verdict(&|list| list.push(("model.layers.0.self_attn.rotary_emb.inv_freq".into(), vec![2]))), Ok(()));
    let missing = verdict(&|list| list.retain(|(name, _)| name != "lm_head.weight"));
    assert_eq!(missing.unwrap_err(), "tensor lm_head.weight is missing from the checkpoint");
    let misshapen = verdict(&|list| list[0].1 = vec![8, 10]);
    assert_eq!(misshapen.unwrap_err(), "tensor model.embed_tokens.weight: expected shape [10, 8], got [8, 10]");
    for extra in ["model.layers.0.self_attn.q_proj.bias", "model.layers.1.mlp.up_proj.weight", "visual.patch"] {
        let error = verdict(&|list| list.push((extra.into(), vec![8]))).unwrap_err();
        assert!(error.starts_with(&format!("tensor {extra} is in the checkpoint, but")), "{error}");
    }
}

#[test]
fn fingerprints_depend_on_the_weights() {
    let print = |value: f32| {
        let dir = tempfile::tempdir().unwrap();
        write(dir.path(), "model.safetensors", &[("x", Dtype::F32, vec![1], f32s(&[value]))]);
        Checkpoint::open(dir.path()).unwrap().fingerprint().unwrap()
    };
    assert_eq!(print(1.0), print(1.0));
    assert_ne!(print(1.0), print(1.0000001));
}

proptest! {
    /// Checks that truncated, corrupted and random files cause errors, never panics.
    #[test]
    fn no_file_causes_a_panic(cut in 0usize..120, at in 0usize..120, byte in any::<u8>(), noise in proptest::collection::vec(any::<u8>(), 0..64)) {
        let dir = tempfile::tempdir().unwrap();
        write(dir.path(), "model.safetensors", &[("x", Dtype::F32, vec![2, 2], f32s(&[1.0; 4]))]);
        let path = dir.path().join("model.safetensors");
        let whole = std::fs::read(&path).unwrap();
        let mut changed = whole.clone();
        changed[at % whole.len()] = byte;
        for contents in [&whole[..cut.min(whole.len() - 1)], &changed, &noise] {
            std::fs::write(&path, contents).unwrap();
            if let Ok(checkpoint) = Checkpoint::open(dir.path()) {
                let _ = checkpoint.tensor_f32("x", &[2, 2]);
            }
        }
        std::fs::write(&path, &whole[..cut.min(whole.len() - 1)]).unwrap();
        prop_assert!(Checkpoint::open(dir.path()).is_err());
    }
}

/// A process that accesses a map of a truncated file is killed.
#[test]
fn weights_that_are_truncated_after_opening_are_an_error() {
    let dir = tempfile::tempdir().unwrap();
    let values = vec![1.0; 3 << 20];
    let tensors = [("x", Dtype::F32, vec![3, 1 << 20], f32s(&values)), ("y", Dtype::BF16, vec![4], vec![0; 8])];
    write(dir.path(), "model.safetensors", &tensors);
    let checkpoint = Checkpoint::open(dir.path()).unwrap();
    checkpoint.tensor_bf16("y", &[4]).unwrap();
    let path = dir.path().join("model.safetensors");
    std::fs::OpenOptions::new().write(true).open(&path).unwrap().set_len(4096).unwrap();
    for error in [
        checkpoint.tensor_f32("x", &[3, 1 << 20]).unwrap_err(),
        checkpoint.bf16_slice("x", &[3, 1 << 20], [1..2, 0..8]).unwrap_err(),
        checkpoint.tensor_bf16("y", &[4]).unwrap_err(),
        checkpoint.fingerprint().unwrap_err(),
    ] {
        let error = error.to_string();
        assert!(error.contains("model.safetensors: the file was modified while the model was loaded"), "{error}");
        assert!(error.contains("and now has 4096"), "{error}");
    }
}
