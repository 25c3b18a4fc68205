"""``s3fsx pve lifecycle``: writes the rules of ``lifecycle`` into the bucket, and tags what may become cold."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

from ..configuration.settings import Settings
from ..errors import ConfigError, NotSupported, Rejected, S3fsxError
from ..service import launch
from . import lifecycle, presets
from .bucketrules import BucketRules
from .lifecycle import Policy

Say = Callable[[str], object]
_CANNOT = ("digitalocean", "r2", "garage")  # their rows in the table of presets say why, or name no such class


@dataclass(frozen=True, slots=True)
class Wish:
    """Days of 0: as the rules that are there say; those without any are bad input. remove: takes ours away."""

    transition_days: int = 0
    transition_class: str = "STANDARD_IA"
    glacier_days: int = 0
    glacier_class: str = "GLACIER"
    warm: int = 3
    remove: bool = False
    dry: bool = False


def cool(name: str, settings: Settings, wish: Wish, say: Say) -> None:
    """Raises ConfigError for what would freeze what must not be, S3fsxError when the store refuses. Rules of others are
    never changed."""
    rules = BucketRules(settings)
    try:
        there = rules.read()
        if wish.remove:
            _remove(name, rules, there, wish, say)
            return
        policy = _policy(name, rules.backups, there, wish)
        policy.check()
        _refuse_where_it_cannot_be(settings)
        _write(rules, there, policy, wish, say)
        if policy.glacier_days:
            _tag(rules, policy, wish, say)
        if wish.dry:
            say("dry run: nothing was changed")
    except (NotSupported, Rejected) as error:
        raise S3fsxError(f"the store refuses these lifecycle rules: {launch.describe(error)}") from None


def _policy(name: str, prefix: str, there: tuple[lifecycle.Rule, ...], wish: Wish) -> Policy:
    policy = Policy(name, prefix, warm=wish.warm)
    if wish.transition_days or wish.glacier_days:
        return replace(
            policy,
            transition_days=wish.transition_days,
            transition_class=wish.transition_class,
            glacier_days=wish.glacier_days,
            glacier_class=wish.glacier_class,
        )
    found = lifecycle.policy_of(there, policy)
    if not found.transition_days and not found.glacier_days:
        raise ConfigError(f"no rules of {name} in the bucket yet: --transition-days N, --glacier-days N, or both")
    return found


def _refuse_where_it_cannot_be(settings: Settings) -> None:
    preset = presets.of_endpoint(settings.endpoint)
    if preset.name in _CANNOT:
        raise ConfigError(f"{preset.title} has no lifecycle rules that move objects to these classes")


def _write(rules: BucketRules, there: tuple[lifecycle.Rule, ...], policy: Policy, wish: Wish, say: Say) -> None:
    others = [rule for rule in there if not lifecycle.is_ours(rule, policy.name)]
    say(f"{len(others)} rules of others stay as they are")
    for line in (*lifecycle.deleting(others, policy.prefix), *lifecycle.freezing(others, policy.prefix, policy.name)):
        say(f"note: {line}")
    ours = policy.rules()
    if wish.dry:
        say("the rules would be:")
    if policy.transition_days:
        say(f"{policy.prefix}: {policy.transition_class} after {policy.transition_days} days, read as before")
    if policy.glacier_days:
        say(
            f"{policy.prefix}: {policy.glacier_class} after {policy.glacier_days} days, but for protected backups and "
            f"the newest {policy.warm} of each guest"
        )
    wanted = lifecycle.merged(there, policy.name, ours)
    if not wish.dry and (len(wanted) != len(there) or lifecycle.weakened(wanted, there)):
        rules.write(wanted, there)


def _tag(rules: BucketRules, policy: Policy, wish: Wish, say: Say) -> None:
    verdict = rules.verdict(policy)
    for key in verdict.protected_frozen:
        say(f"note: {key} is protected, but cannot be read until it is restored")
    if wish.dry:
        for key in verdict.cold:
            say(f"  {key}: would be allowed to become cold")
        return
    changed = rules.tag(policy, verdict, say)
    say(f"{len(verdict.cold)} backups may become cold, {len(verdict.warm)} old ones stay; {changed} tags changed")


def _remove(name: str, rules: BucketRules, there: tuple[lifecycle.Rule, ...], wish: Wish, say: Say) -> None:
    ours = [str(rule["ID"]) for rule in there if lifecycle.is_ours(rule, name)]
    if wish.dry:
        say(f"rules that would be taken away: {', '.join(ours) or 'none'}; what is cold already would stay cold")
        say("dry run: nothing was changed")
        return
    say(f"rules taken away: {', '.join(ours) or 'none'}; what is cold already stays cold")
    if ours:
        rules.write(lifecycle.merged(there, name, ()), there)
