"""The names Sahha is known to use, for filters, completion and checks of one's own.

All of these sets are open: nothing in this package refuses a name that is not here. Sources: Sahha's client libraries
(December 2025), docs.sahha.ai, recorded answers.
"""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType

__all__ = [
    "AGGREGATIONS",
    "ARCHETYPE_NAMES",
    "ARCHETYPE_PERIODICITIES",
    "ARCHETYPE_VALUES",
    "BIOMARKER_CATEGORIES",
    "BIOMARKER_TYPES",
    "COMPARISON_CATEGORIES",
    "COMPARISON_STATES",
    "COMPARISON_TYPES",
    "DATA_LOG_TYPES",
    "GENDERS",
    "RECORDING_METHODS",
    "SCORE_FACTORS",
    "SCORE_STATES",
    "SCORE_TYPES",
    "SDK_IDS",
    "TREND_CATEGORIES",
    "TREND_STATES",
]


def _words(text: str) -> tuple[str, ...]:
    return tuple(text.split())


SCORE_TYPES = _words("wellbeing activity sleep readiness mental_wellbeing")
SCORE_STATES = _words("minimal low medium high")

_ACTIVITY_FACTORS = _words(
    "steps active_hours active_calories intense_activity_duration extended_inactivity floors_climbed"
)
_SLEEP_FACTORS = _words(
    "sleep_duration sleep_regularity sleep_continuity sleep_debt circadian_alignment physical_recovery mental_recovery"
)

SCORE_FACTORS: Mapping[str, tuple[str, ...]] = MappingProxyType(
    {
        "activity": _ACTIVITY_FACTORS,
        "sleep": _SLEEP_FACTORS,
        "mental_wellbeing": _words(
            "steps active_hours extended_inactivity activity_regularity sleep_regularity circadian_alignment"
        ),
        "readiness": _words(
            "sleep_duration physical_recovery mental_recovery sleep_debt walking_strain_capacity"
            " exercise_strain_capacity resting_heart_rate heart_rate_variability"
        ),
        "wellbeing": (*_ACTIVITY_FACTORS, *_SLEEP_FACTORS),
    }
)
"""What goes into each type of score."""

BIOMARKER_TYPES: Mapping[str, tuple[str, ...]] = MappingProxyType(
    {
        "activity": _words(
            "steps floors_climbed active_hours active_duration activity_low_intensity_duration"
            " activity_mid_intensity_duration activity_high_intensity_duration activity_sedentary_duration"
            " active_energy_burned total_energy_burned"
        ),
        "body": _words(
            "height weight body_mass_index body_fat fat_mass lean_mass waist_circumference resting_energy_burned"
        ),
        "characteristic": _words("age biological_sex date_of_birth"),
        "reproductive": _words(
            "menstrual_cycle_length menstrual_cycle_start_date menstrual_cycle_end_date menstrual_phase"
            " menstrual_phase_start_date menstrual_phase_end_date menstrual_phase_length"
        ),
        "sleep": _words(
            "sleep_start_time sleep_end_time sleep_mid_time sleep_duration sleep_debt sleep_interruptions"
            " sleep_in_bed_duration sleep_awake_duration sleep_light_duration sleep_rem_duration"
            " sleep_deep_duration sleep_regularity sleep_latency sleep_efficiency"
        ),
        "vitals": _words(
            "heart_rate heart_rate_resting heart_rate_sleep heart_rate_variability_sdnn heart_rate_variability_rmssd"
            " respiratory_rate respiratory_rate_sleep oxygen_saturation oxygen_saturation_sleep vo2_max blood_glucose"
            " blood_pressure_systolic blood_pressure_diastolic body_temperature_basal skin_temperature_sleep"
        ),
        "exercise": (),
        "device": (),
        "nutrition": (),
    }
)
"""The types of biomarkers of each category; those of the last three are not published."""

BIOMARKER_CATEGORIES = tuple(BIOMARKER_TYPES)
AGGREGATIONS = _words("total average none")

ARCHETYPE_VALUES: Mapping[str, tuple[str, ...]] = MappingProxyType(
    {
        "activity_level": _words("sedentary lightly_active moderately_active highly_active"),
        "exercise_frequency": _words("rare_exerciser occasional_exerciser regular_exerciser frequent_exerciser"),
        "mental_wellness": _words(
            "poor_mental_wellness fair_mental_wellness good_mental_wellness optimal_mental_wellness"
        ),
        "overall_wellness": _words("poor_wellness fair_wellness good_wellness optimal_wellness"),
        "sleep_duration": _words("very_short_sleeper short_sleeper average_sleeper long_sleeper"),
        "sleep_efficiency": _words(
            "highly_inefficient_sleeper inefficient_sleeper efficient_sleeper highly_efficient_sleeper"
        ),
        "sleep_quality": _words("poor_sleep_quality fair_sleep_quality good_sleep_quality optimal_sleep_quality"),
        "sleep_regularity": _words("highly_irregular_sleeper irregular_sleeper regular_sleeper highly_regular_sleeper"),
        "bed_schedule": _words("very_early_sleeper early_sleeper late_sleeper very_late_sleeper"),
        "wake_schedule": _words("very_early_riser early_riser late_riser very_late_riser"),
    }
)
"""The values of the ordinal archetypes, from ordinality 0 up."""

ARCHETYPE_NAMES = (
    *ARCHETYPE_VALUES,
    "primary_exercise",
    "secondary_exercise",
    "primary_exercise_type",
    "sleep_pattern",
)
ARCHETYPE_PERIODICITIES = _words("weekly monthly")

TREND_CATEGORIES = _words("score factor")
TREND_STATES = _words("increasing decreasing stable")
COMPARISON_CATEGORIES = _words("score biomarker")
COMPARISON_TYPES = _words("global demographic baseline")
COMPARISON_STATES = _words("very_low low average high very_high")

DATA_LOG_TYPES = _words(
    "demographic sleep activity device heart blood oxygen energy temperature body exercise nutrition"
)
RECORDING_METHODS = _words("actively_recorded automatically_recorded manual_entry unknown")
GENDERS = ("Male", "Female", "Gender Diverse")
SDK_IDS = _words("android_kotlin ios_swift react_native flutter capacitor cordova")
