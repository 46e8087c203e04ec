"""The command that says what works here. Whatever is slow to import is imported inside the checks."""

from __future__ import annotations


def doctor() -> None:
    """Says what works on this machine and what to do about what does not; exit code 1 for a fault that matters."""
    from clip2latent import doctor_demo, doctor_machine, doctor_packages
    from clip2latent.doctor import FAULT, Check, diagnose, shown, verdict

    checks: dict[str, Check] = {
        "python": lambda: doctor_packages.check_python(doctor_packages.read_ranges().python),
        "packages": lambda: doctor_packages.check_packages(doctor_packages.read_ranges().packages),
        "extras": lambda: doctor_packages.check_extras(doctor_packages.read_ranges().extras),
        "processors": doctor_machine.check_processors,
        "GPU": doctor_machine.check_gpu,
        "precision": doctor_machine.check_precision,
        "memory": doctor_machine.check_memory,
        "folders": lambda: doctor_machine.check_folders(doctor_demo.folders()),
        "caches": lambda: doctor_demo.check_caches(doctor_demo.caches()),
        "demo's files": doctor_demo.check_assets,
        "weights": doctor_demo.check_network,
        "drawing": doctor_demo.check_drawing,
    }
    findings = []
    for finding in diagnose(checks):
        print(shown(finding), flush=True)
        findings.append(finding)
    print(f"\n{verdict(findings)}")
    if any(finding.state == FAULT for finding in findings):
        raise SystemExit(1)
