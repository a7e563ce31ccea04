"""Sahha's profiles: who they are, what they use, their tokens, and the logs uploaded for them."""

from __future__ import annotations

from datetime import datetime
from typing import Annotated, Any

from pydantic import AfterValidator, BeforeValidator, Field
from pydantic_core import PydanticCustomError

from consumer.models.base import CalendarDate, Flag, Number, Rows, Timestamp, is_header_text
from consumer.models.sahha_base import SahhaModel
from consumer.models.sahha_values import decode_value

__all__ = [
    "DataLogItem",
    "Demographic",
    "DeviceInformation",
    "Profile",
    "ProfilePage",
    "ProfileSource",
    "SahhaAccountToken",
    "SahhaProfileToken",
]

_INTEGER_TYPE = "integer"


def _seconds_from_text(value: Any) -> Any:
    return decode_value(_INTEGER_TYPE, value) if isinstance(value, str) else value


def _birth_date(value: Any) -> Any:
    # Sahha's own example is a date; a midnight after it would be no surprise from a service that has only date-times.
    return value.split("T", 1)[0] if isinstance(value, str) else value


def _with_offset(value: Any) -> Any:
    if isinstance(value, datetime) and value.tzinfo is None:
        raise PydanticCustomError("offset", "Input should be a time with an offset")
    return value


def _token(value: str) -> str:
    if not is_header_text(value) or " " in value:
        raise PydanticCustomError("token", "Input should be a token")
    return value


Token = Annotated[str, AfterValidator(_token)]
Seconds = Annotated[Number, BeforeValidator(_seconds_from_text)]
UploadTime = Annotated[Timestamp, BeforeValidator(_with_offset)]


class SahhaAccountToken(SahhaModel):
    """A token for calls as the account; its text never appears in a `repr`."""

    account_token: Token
    expires_in: Seconds | None = None
    """Seconds, from when it was made."""
    token_type: str | None = None


class SahhaProfileToken(SahhaModel):
    """A token for calls as one profile; its text never appears in a `repr`."""

    profile_token: Token
    expires_in: Seconds | None = None
    """Seconds, from when it was made."""
    token_type: str | None = None
    refresh_token: Token | None = None


class ProfileSource(SahhaModel):
    """Where a profile's data comes from."""

    source_name: str | None = None
    device_type: str | None = None


class Profile(SahhaModel):
    """A profile (`GET /api/v1/account/profile/{externalId}`)."""

    profile_id: str | None = None
    account_id: str | None = None
    external_id: str | None = None
    """The member, as the partner knows them."""
    sdk_id: str | None = None
    sdk_version: str | None = None
    device_type: str | None = None
    created_at_utc: Timestamp | None = None
    data_last_received_at_utc: Timestamp | None = None
    is_sample_profile: Flag | None = None
    data_sources: Rows[ProfileSource] = ()
    """Empty in search results, which leave it out."""


class ProfilePage(SahhaModel):
    """One page of a search (`GET /api/v1/account/profile/search`)."""

    items: Rows[Profile] = ()
    current_page: Number | None = None
    """Whether the first is 0 or 1 is not published."""
    total_pages: Number | None = None
    page_size: Number | None = None
    total_count: Number | None = None


class Demographic(SahhaModel):
    """Who a member is (`GET /api/v1/profile/demographic`); every field may be missing, and only `age` is a number."""

    age: Number | None = None
    gender: Annotated[str, Field(examples=["Male", "Female", "Gender Diverse"])] | None = None
    """Seen in capitals and without."""
    country: Annotated[str, Field(examples=["NZ"])] | None = None
    birth_country: Annotated[str, Field(examples=["NZ"])] | None = None
    birth_date: Annotated[CalendarDate, BeforeValidator(_birth_date)] | None = None
    ethnicity: str | None = None
    occupation: str | None = None
    industry: str | None = None
    income_range: str | None = None
    education: str | None = None
    relationship: str | None = None
    locale: Annotated[str, Field(examples=["Rural", "Urban"])] | None = None
    living_arrangement: str | None = None


class DeviceInformation(SahhaModel):
    """The device a member uses (`GET /api/v1/profile/deviceInformation`)."""

    device_information_id: str | None = None
    sdk_id: Annotated[str, Field(examples=["ios_swift", "android_kotlin", "react_native", "flutter"])] | None = None
    sdk_version: str | None = None
    app_id: str | None = None
    app_version: str | None = None
    device_id: str | None = None
    device_type: str | None = None
    device_model: str | None = None
    system: str | None = None
    system_version: str | None = None
    time_zone: Annotated[str, Field(examples=["+12:00"])] | None = None


class DataLogItem(SahhaModel):
    """One reading to upload (`POST /api/v1/profile/data/log`).

    Text without an offset is UTC, as Sahha reads it; a `datetime` without one is refused, because Python reads that as
    local time.
    """

    id: str = Field(min_length=1)
    """Chosen by who uploads."""
    log_type: str = Field(min_length=1)
    data_type: str = Field(min_length=1)
    start_date_time: UploadTime
    end_date_time: UploadTime
    value: Number | str | None = None
    """In `unit`; Sahha's own clients send a number."""
    unit: str | None = None
    source: str | None = None
    recording_method: str | None = None
    device_type: str | None = None
    device_id: str | None = None
    source_id: str | None = None
    aggregation: Annotated[str, Field(examples=["sum", "avg"])] | None = None
    periodicity: Annotated[str, Field(examples=["hourly", "daily"])] | None = None
    parent_id: str | None = None
    post_date_time: UploadTime | None = None
    modified_date_time: UploadTime | None = None
    additional_properties: dict[str, Any] | None = None
