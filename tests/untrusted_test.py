"""Tests of jacsup_jax.untrusted; fuzz_runs_test has more."""

import os

import pytest

from jacsup_jax.core import errors
from jacsup_jax.core import untrusted


def _refuses(message, function, *args, **kwargs):
  with pytest.raises(errors.InputError, match=message):
    function(*args, **kwargs)


# Values.


def test_a_file_of_the_largest_size_is_read(tmp_path):
  path = tmp_path / 'it'
  path.write_bytes(b'abc')
  assert untrusted.check_file(path) == 3
  assert untrusted.read(path, 3) == b'abc'
  _refuses('it has 3 bytes; accepted: 2 at most', untrusted.read, path, 2)


def test_a_json_object(tmp_path):
  path = tmp_path / 'it.json'
  path.write_text('{"a": [1, NaN]}')
  assert untrusted.read_json(path)['a'][0] == 1


@pytest.mark.parametrize(
    ('value', 'kind'),
    [
        (1, int), (1, float), (1.5, float), (float('nan'), float), (True, bool),
        ('x', str), ({}, dict), (None, int | None), (1, int | None),
        ([1, 2], list[int]), ([], list[str]), ((1, 2), tuple[int, ...]),
        ([1, 'x'], tuple[int, str]), ({'a': 1}, dict[str, int]),
        (None, str | None),
    ],
)  # pyformat: disable
def test_entries_that_have_their_type(value, kind):
  untrusted.check_entries('it', {'a': value, 'more': 0}, {'a': kind})


@pytest.mark.parametrize(
    ('value', 'kind', 'message'),
    [
        (True, int, "it has 'a' True; accepted: a whole number"),
        (1, bool, 'accepted: true or false'),
        (1.0, int, 'a whole number'),
        (2**63, int, 'a whole number'),
        (10**400, float, 'a number of 1329 bits; accepted: a number'),
        ('1', float, "'1'; accepted: a number"),
        (None, str, 'None; accepted: a string'),
        ([], dict, 'a list of 0; accepted: an object'),
        (None, list, 'None; accepted: a list'),
        ({'x': 'y'}, dict[str, int], r'an object of 1; .*an object \(a whole'),
        ('ab', list[str], r'accepted: a list \(a string\)'),
        ([1], tuple[int, int], 'a list of 1'),
        ({}, tuple[int, ...], 'an object of 0'),
        ('x', int | None, 'accepted: a whole number or null'),
        ('x' * 99, int, 'xxx...; accepted'),
    ],
)
def test_entries_that_have_not(value, kind, message):
  _refuses(message, untrusted.check_entries, 'it', {'a': value}, {'a': kind})


def test_entries_that_are_missing():
  _refuses("it has no 'a'", untrusted.check_entries, 'it', {}, {'a': int})
  untrusted.check_entries('it', {}, {'a': int}, optional=True)


# Bad input.


def test_what_is_no_regular_file(tmp_path):
  os.mkfifo(tmp_path / 'pipe')
  for name, message in (
      ('pipe', 'a pipe or device'), ('.', 'a directory'), ('x', 'No such file'),
      ('x' * 300, 'too long'), ('x\0', 'null'),
  ):  # pyformat: disable
    _refuses(message, untrusted.read, tmp_path / name, 9)
  assert untrusted.exists(tmp_path)
  assert not untrusted.exists(tmp_path / ('x' * 300))


@pytest.mark.skipif(
    not hasattr(os, 'geteuid') or os.geteuid() == 0,
    reason='root may read everything',
)
def test_a_file_without_permission(tmp_path):
  path = tmp_path / 'it'
  path.write_bytes(b'abc')
  path.chmod(0)
  _refuses('Permission denied', untrusted.read, path, 9)


@pytest.mark.parametrize(
    ('content', 'message'),
    [
        (b'', 'is not JSON'),
        (b'\xff', 'is not JSON'),
        (b'[' * 100_000, r'is not JSON \(.*recursion'),
        (b'1' * 5000, 'is not JSON'),
        (b'[1]', 'holds a list of 1; accepted: a JSON object'),
        (b'null', 'holds None'),
    ],
)
def test_what_is_no_json_object(content, message):
  _refuses(message, untrusted.parse_json, 'it', content)
