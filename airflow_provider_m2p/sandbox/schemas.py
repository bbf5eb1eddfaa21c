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
    countryCode: float | int | str | None = None
    issuanceFee: Money | None = None
    maxLoadAmount: Money | None = None
    limits: dict[str, Any] | None = None
    fees: list[dict[str, Any]] | None = None
    binRanges: list[dict[str, Any]] | None = None
    notification: list[dict[str, Any]] | None = None


class ProductDraft(ProductFields):
    """A product without what the platform gives it: `productId`, `createdAt` and `updatedAt`."""


class Product(ProductFields):
    productId: str
    createdAt: str
    updatedAt: str


class ProductList(Model):
    """``pagination`` is null when neither ``pageNo`` nor ``pageSize`` was asked for: then this is the whole list."""

    result: list[Product]
    pagination: Pagination | None


ChangeStatus = Literal["PENDING_APPROVAL", "APPROVED", "REJECTED"]


class ProductChange(Model):
    changeId: str
    changeType: Literal["CREATE", "UPDATE"]
    currentStatus: ChangeStatus
    productId: str
    product: Product
    maker: str
    checker: str | None
    remark: str | None
    createdAt: str
    updatedAt: str


class ChangeAnswer(Model):
    result: ProductChange


class ChangeList(Model):
    result: list[ProductChange]
    pagination: Pagination | None


class Transition(Model):
    """What another client than the maker decides."""

    action: Literal["APPROVED", "REJECTED"]
    remark: str | None = Field(None, max_length=500)


class Issuance(Model):
    id: str
    applicationNumber: str
    currentStatus: str
    corporate: dict[str, Any]
    product: dict[str, Any]
    noOfCards: int
    loadAmount: str
    totalFee: float
    remarks: list[str]
    createdAt: str


class PartialPagination(Model):
    pageNo: int
    pageSize: int
    totalElements: int


class IssuanceList(Model):
    result: list[Issuance]
    pagination: PartialPagination


class RevocationRequest(Model):
    token: Annotated[str, StringConstraints(min_length=1)]


class Rotation(Model):
    """How long the old secret stays good; the platform decides if it is left out."""

    windowSeconds: float | None = Field(None, ge=0, le=31_536_000)


class RotatedSecret(Model):
    clientId: str
    clientSecret: str
    previousSecretValidUntil: str


class RotatedAnswer(Model):
    result: RotatedSecret


class RevokedClient(Model):
    clientId: str


class RevokedAnswer(Model):
    result: RevokedClient


class KeySet(Model):
    keys: list[dict[str, Any]]


class AuditEvent(Model):
    at: str
    tenant: str
    actor: str
    action: str
    target: str
    outcome: str
    requestId: str


class AuditList(Model):
    result: list[AuditEvent]
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
