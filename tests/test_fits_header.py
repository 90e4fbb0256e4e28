"""The header of velocities says of a pixel what that of the images said."""

from __future__ import annotations

import warnings

import numpy as np
import pytest
from astropy.io import fits
from astropy.wcs import WCS

from dlbench.fits_header import cadence_s, pixel_km, velocity_header

SHAPE = (2, 20, 30, 6)  # pairs, ny, nx, components


def images(axes: int = 3, **cards: object) -> fits.Header:
    """A header of helioprojective images, rotated, in arcsec, with time where there is one."""
    header = fits.PrimaryHDU(np.zeros((3, 20, 30)[3 - axes :], np.int16)).header
    header.update({"CTYPE1": "HPLN-TAN", "CTYPE2": "HPLT-TAN", "CUNIT1": "arcsec"})
    header.update({"CUNIT2": "arcsec", "CRVAL1": -300.5, "CRVAL2": 120.25})
    header.update({"CRPIX1": 15.5, "CRPIX2": 10.0, "CDELT1": 0.0546, "CDELT2": 0.06})
    header.update({"PC1_1": 0.8, "PC1_2": -0.6, "PC2_1": 0.6, "PC2_2": 0.8})
    if axes == 3:
        header.update({"CTYPE3": "TIME", "CUNIT3": "s", "CRPIX3": 1.0, "CRVAL3": 50.0})
        header["CDELT3"] = 30.0
    header.update({"RSUN_REF": 6.957e8, "DSUN_OBS": 1.5e11, "HGLN_OBS": 0.0, "HGLT_OBS": 0.0})
    header.update(cards)
    return header


def world(header: fits.Header, x: float, y: float, key: str = " ") -> np.ndarray:
    """Longitude and latitude in degrees of pixel x, y, counted from 0."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        celestial = WCS(header, key=key).celestial
    assert celestial.naxis == 2
    return np.array(celestial.all_pix2world(x, y, 0))


@pytest.mark.parametrize("axes", [2, 3])
@pytest.mark.parametrize("border", [0, 3])
@pytest.mark.parametrize("form", ["PC", "CD", "CROTA", "none"])
def test_a_pixel_stays_where_it_was(axes: int, border: int, form: str) -> None:
    header = images(axes)
    if form != "PC":
        for name in ("PC1_1", "PC1_2", "PC2_1", "PC2_2"):
            value = header.pop(name)
            if form == "CD":
                header[f"CD{name[2:]}"] = value * 0.05
    if form == "CD":
        del header["CDELT*"]
        if axes == 3:
            header["CD3_3"] = 30.0
    if form == "CROTA":
        header["CROTA2"] = 25.0
    found, moved = velocity_header(header, SHAPE, border)
    assert moved
    for x, y in ((0, 0), (29, 19), (7, 11.5)):
        expected = world(header, x + border, y + border)
        np.testing.assert_allclose(world(found, x, y), expected, rtol=1e-12)
    assert [found[f"CTYPE{i}"] for i in (1, 2, 3)] == ["COMPONENT", "HPLN-TAN", "HPLT-TAN"]
    assert found["CUNIT2"] == "arcsec"
    everything = WCS(found)
    components = everything.all_pix2world([[i, 0, 0, 0] for i in range(6)], 0)[:, 0]
    np.testing.assert_array_equal(components, [1, 2, 3, 4, 5, 6])
    if axes == 3:
        times = everything.all_pix2world([[0, 0, 0, i] for i in range(3)], 0)[:, 3]
        np.testing.assert_array_equal(times, [65, 95, 125])  # midway between frames
    assert fits.PrimaryHDU(np.zeros(SHAPE, np.float32), found).header["NAXIS2"] == 30


def test_a_wavelength_of_single_images_goes_behind_the_pairs() -> None:
    header = images(2, WCSAXES=3, CTYPE3="AWAV", CUNIT3="nm", CRVAL3=450.4, CRPIX3=1.0, CDELT3=0.1)
    header.update({"WCSAXESA": 3, "CTYPE1A": "RA---TAN", "CTYPE2A": "DEC--TAN", "CTYPE3A": "AWAV"})
    header.update({"CRVAL1A": 338.5, "CRVAL2A": -8.9, "CUNIT3A": "nm", "CRVAL3A": 450.4})
    header.update({"CDELT1A": 1e-5, "CDELT2A": 1e-5, "PC1_2A": 0.3, "PC3_2A": 0.0})
    found, moved = velocity_header(header, SHAPE)
    assert moved
    assert found["WCSAXES"] == found["WCSAXESA"] == 5
    assert (found["CTYPE4"], found["CTYPE5"], found["CTYPE5A"]) == ("", "AWAV", "AWAV")
    for key in " A":
        np.testing.assert_allclose(world(found, 4, 5, key), world(header, 4, 5, key), rtol=1e-12)
    assert WCS(found).all_pix2world([[0, 0, 0, 1, 0]], 0)[0, 4] == pytest.approx(450.4e-9)


def test_cards_are_kept_but_those_of_the_data() -> None:
    header = images(EXPTIME=0.1, OBSERVER="N. N.", BUNIT="ct", BSCALE=2.0, BZERO=1.0, BLANK=-1)
    header.update({"CHECKSUM": "abc", "DATASUM": "1", "DATAMAX": 9.0, "EXTNAME": "X"})
    header["LONG"] = ("x" * 100, "a long string")
    header.add_comment("as observed")
    header.add_history("flat-fielded")
    header.add_history("registered")
    header["HIERARCH Some key"] = 5
    found, moved = velocity_header(header, SHAPE)
    assert moved
    assert (found["EXPTIME"], found["OBSERVER"], found["BUNIT"]) == (0.1, "N. N.", "km/s")
    assert (found["LONG"], found.comments["LONG"]) == ("x" * 100, "a long string")
    assert list(found["HISTORY"]) == ["flat-fielded", "registered"]
    assert str(found["COMMENT"]).count("as observed") == 1
    assert found["Some key"] == 5
    for name in ("BSCALE", "BZERO", "BLANK", "CHECKSUM", "DATASUM", "DATAMAX", "EXTNAME"):
        assert name not in found
    assert [found[f"COMP{i}"] for i in (1, 4, 6)] == ["vx tau=1", "vy tau=0.1", "vy tau=0.01"]
    assert found["SIMPLE"] is True
    assert [found[f"NAXIS{i}"] for i in (1, 2, 3, 4)] == [6, 30, 20, 2]


def sip() -> fits.Header:
    header = images(2, CTYPE1="RA---TAN-SIP", CTYPE2="DEC--TAN-SIP", CUNIT1="deg", CUNIT2="deg")
    header.update({"CRVAL1": 10.0, "CRVAL2": 5.0, "A_ORDER": 2, "B_ORDER": 2})
    header.update({"A_2_0": 1e-3, "B_0_2": 1e-3})
    return header


@pytest.mark.parametrize("kind", ["distortion", "table", "old matrix", "nonsense"])
def test_coordinates_that_cannot_be_moved_are_kept_out_of_reach(kind: str) -> None:
    header = {
        "distortion": sip(),
        "table": images(CTYPE3="TIME-TAB", PS3_0="TABLE", PS3_1="TIME"),
        "old matrix": images(2, PC001002=0.5),
        "nonsense": images(CUNIT1="furlongs!", CTYPE1="HPLN-TAN", CTYPE2="GLAT-CAR"),
    }[kind]
    found, moved = velocity_header(header, SHAPE, 2)
    assert not moved
    assert found["INPUT CTYPE1"] == header["CTYPE1"]
    assert found["INPUT CRVAL2"] == header["CRVAL2"]
    assert found.get("CTYPE2", "") == ""
    for name in ("A_ORDER", "PS3_0", "PC001002"):
        if name in header:
            assert name not in found
            assert found[f"INPUT {name}"] == header[name]
    assert found["RSUN_REF"] == header["RSUN_REF"]
    assert not WCS(found).has_celestial
    assert b"INPUT CTYPE1" in found.tostring().encode("ascii")


def test_a_header_without_coordinates_and_one_with_a_broken_card() -> None:
    found, moved = velocity_header(fits.Header(), SHAPE)
    assert moved
    assert found["CTYPE1"] == "COMPONENT"
    broken = fits.Header.fromstring(
        "SIMPLE  =                    T".ljust(80)
        + "NAXIS   =                    3".ljust(80)
        + "BAD     = 'never closed".ljust(80)
        + "bad key = 4".ljust(80)
        + "GOOD    =                    7".ljust(80)
        + "END".ljust(80)
    )
    found, moved = velocity_header(broken, SHAPE)
    assert moved
    assert found["GOOD"] == 7
    found.tostring()


def test_scale_and_cadence_are_read_where_the_header_tells() -> None:
    assert pixel_km(images()) == pytest.approx(np.hypot(0.0546 * 0.8, 0.06 * 0.6) * 725)
    plain = images(PC1_1=1.0, PC1_2=0.0, PC2_1=0.0, PC2_2=1.0)
    assert pixel_km(plain) == pytest.approx(0.0546 * 725)
    plain.update({"CTYPE1": "", "CTYPE2": "", "CUNIT1": "Mm", "CUNIT2": "Mm"})
    assert pixel_km(plain) == pytest.approx(54.6)
    degrees = images(2, CUNIT1="deg", CUNIT2="deg", CDELT1=1e-5, CDELT2=1e-5)
    degrees.update({"CRVAL2": 0.1, "PC1_1": 1.0, "PC1_2": 0.0, "PC2_1": 0.0, "PC2_2": 1.0})
    assert pixel_km(degrees) == pytest.approx(1e-5 * 3600 * 725)
    for silent in (fits.Header(), images(CUNIT1="m/s", CTYPE1="VELO"), images(CUNIT1="?")):
        assert pixel_km(silent) is None
    assert cadence_s(images()) == 30.0
    assert cadence_s(images(CADENCE=12)) == 12.0
    assert cadence_s(images(2)) is None
    assert cadence_s(images(CUNIT3="nm")) is None
    assert cadence_s(images(CADENCE="fast")) is None
