"""Many hospitals train one network, none handing out its images: the bundles on NVIDIA FLARE, by MONAI's client."""
