"""What goes over the wire, for validation and for the OpenAPI document. Text, numbers and objects are not coerced."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, StringConstraints

Text = Annotated[str, StringConstraints(min_length=1, max_length=200)]
Money = float | int | str


class Model(BaseModel):
    model_config = ConfigDict(strict=True)


class TokenRequest(Model):
    clientId: Text = Field(examples=["acme-viewer"])
    clientSecret: Text = Field(examples=["acme-viewer-secret"])
    grantType: Literal["client_credentials"]


class TokenResponse(Model):
    access_token: str
    token_type: Literal["Bearer"]
    expires_in: int


class Pagination(Model):
    list: bool
    pageSize: int
    pageNo: int
    totalPages: int
    totalElements: int


class ProductFields(Model):
    """The fields a client may count on; a product can have any others besides."""

    model_config = ConfigDict(strict=True, extra="allow")

    productName: Text
    productType: Text = Field(examples=["GPR", "GIFT", "FOREX", "WALLET", "CREDIT", "AMC", "GPRNCMC"])
    cardNetwork: str | None = None
    status: str | None = None
    kycType: str | None = None
    allowUpi: bool | None = None
    countryCode: int | str | None = None
    issuanceFee: Money | None = None
    maxLoadAmount: Money | None = None
    limits: dict[str, Any] | None = None
    fees: list[dict[str, Any]] | None = None
    binRanges: list[dict[str, Any]] | None = None
    notification: list[dict[str, Any]] | None = None


class Product(ProductFields):
    productId: str
    createdAt: str
    updatedAt: str


class ProductList(Model):
    """``pagination`` is null when neither ``pageNo`` nor ``pageSize`` was asked for: then this is the whole list."""

    result: list[Product]
    pagination: Pagination | None


class FieldError(Model):
    field: str
    message: str


class ProblemDocument(Model):
    """Both spellings of the business code occur, one per answer."""

    type: str
    title: str
    status: int
    detail: str
    path: str
    message: str
    businessCode: str | None = None
    business_code: str | None = Field(None, alias="business.code")
    fieldErrors: list[FieldError] | None = None
