//! Names to devices. The one place that knows which backends were compiled in.

use burn::tensor::Device;
#[cfg(any(feature = "wgpu", feature = "cuda", feature = "rocm"))]
use burn::tensor::DeviceType;

use crate::failure::Advice;

/// A backend that Kindling knows, compiled in or not.
pub(crate) struct Backend {
    pub(crate) name: &'static str,
    pub(crate) what: &'static str,
    pub(crate) compiled: bool,
}

/// All of them, the default first.
pub(crate) const BACKENDS: [Backend; 7] = [
    Backend { name: "flex", what: "CPU, portable and fastest there", compiled: cfg!(feature = "flex") },
    Backend { name: "ndarray", what: "CPU, by the ndarray crate", compiled: cfg!(feature = "ndarray") },
    Backend { name: "wgpu", what: "GPU, by whichever graphics API is there", compiled: cfg!(feature = "wgpu") },
    Backend { name: "vulkan", what: "GPU, by Vulkan", compiled: cfg!(feature = "vulkan") },
    Backend { name: "metal", what: "GPU, by Metal on a Mac", compiled: cfg!(feature = "metal") },
    Backend { name: "cuda", what: "NVIDIA GPU", compiled: cfg!(feature = "cuda") },
    Backend { name: "rocm", what: "AMD GPU", compiled: cfg!(feature = "rocm") },
];

/// Opens `name`, or `name:index` for another than the first card.
pub(crate) fn open(text: &str) -> anyhow::Result<Device> {
    let (name, index) = match text.split_once(':') {
        Some((name, index)) => (name, index.parse::<usize>().ok()),
        None => (text, Some(0)),
    };
    let known = || BACKENDS.iter().map(|backend| format!("`{}`", backend.name)).collect::<Vec<_>>().join(", ");
    let (Some(backend), Some(index)) = (BACKENDS.iter().find(|backend| backend.name == name), index) else {
        let message = format!("device `{text}` is unknown, expected one of {}", known());
        return Err(
            Advice { message, hint: "`kindling devices` lists what this binary can use; `cuda:1` means the second card".into() }.into()
        );
    };
    if !backend.compiled {
        let message = format!("device `{name}` was not compiled into this binary");
        let hint = format!("build it with `{}`, or run `cargo xtask train --device {name}`", build_command(name));
        return Err(Advice { message, hint }.into());
    }
    let found = enumerate(name);
    let n = found.len();
    found.into_iter().nth(index).ok_or_else(|| {
        let hint =
            if n == 0 { "check that its driver is installed, or use `--device flex`".into() } else { format!("use `--device {name}:0`") };
        let place = if n == 0 { "none".to_owned() } else { n.to_string() };
        Advice { message: format!("device `{text}` is not there: this machine has {place} that `{name}` can use"), hint }.into()
    })
}

/// The command that compiles a backend in.
pub(crate) fn build_command(name: &str) -> String {
    format!("cargo build --release --package kindling-cli --features {name}")
}

/// The hardware that a compiled backend finds. A driver that panics while it looks has found nothing.
pub(crate) fn enumerate(name: &str) -> Vec<Device> {
    let hook = std::panic::take_hook();
    std::panic::set_hook(Box::new(|_| {}));
    let found = std::panic::catch_unwind(|| match name {
        #[cfg(feature = "flex")]
        "flex" => vec![Device::flex()],
        #[cfg(feature = "ndarray")]
        "ndarray" => {
            #[expect(deprecated, reason = "kept for those who ask for it by name")]
            let device = Device::ndarray();
            vec![device]
        }
        #[cfg(feature = "wgpu")]
        "wgpu" => Device::enumerate(DeviceType::Wgpu).into_vec(),
        #[cfg(feature = "vulkan")]
        "vulkan" => Device::enumerate(DeviceType::Vulkan).into_vec(),
        #[cfg(feature = "metal")]
        "metal" => Device::enumerate(DeviceType::Metal).into_vec(),
        #[cfg(feature = "cuda")]
        "cuda" => Device::enumerate(DeviceType::Cuda).into_vec(),
        #[cfg(feature = "rocm")]
        "rocm" => Device::enumerate(DeviceType::Rocm).into_vec(),
        _ => Vec::new(),
    });
    std::panic::set_hook(hook);
    found.unwrap_or_default()
}
