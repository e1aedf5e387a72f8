def download(
    name: str,
    index: str,
    output_dir: str,
    version: str | None = None,
    sha256: str | None = None,
    allow_http: bool = False,
) -> None:
    """Download a packaged bundle, verify its SHA-256 and those of its files, and place its folder atomically.

    A bundle is code: using it means running what its publisher wrote, with all your rights. Get it only from publishers
    that you trust.

    Args:
        name: name of the bundle, e.g. m3ae.
        index: URL or path of the index.json that lists it.
        output_dir: the folder in which the bundle's folder is placed.
        version: version of the bundle, e.g. 0.1.0; by default the newest.
        sha256: SHA-256 of the index, as its publisher published it elsewhere; another index is refused.
        allow_http: also allow downloads by http, which can be changed on the way.
    """
    from tools.packages.index import download_bundle

    placed = download_bundle(name, index, output_dir, version, sha256, allow_http)
    print(f"{placed}: see requirements.txt for its dependencies and docs/README.md for its use")
    if sha256 is None:
        print("It is code that runs with your rights. Verify with --sha256 of the index that it is its publisher's.")
