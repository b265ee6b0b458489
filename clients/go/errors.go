package latentserve

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"time"

	"google.golang.org/genproto/googleapis/rpc/errdetails"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
)

// Kinds of [Error], more specific than its code; for errors.Is.
var (
	// ErrQueueFull: the queue of the model is full; retry after RetryAfter.
	ErrQueueFull = errors.New("latentserve: the model's queue is full")
	// ErrMessageTooLarge: the request or the reply exceeds a size limit. A retry fails again: send
	// fewer images, request [Uint8] or [PNG], or raise [WithMaxMessageBytes].
	ErrMessageTooLarge = errors.New("latentserve: the message is too large")
	// ErrOperationNotSupported: the model lacks the operation; Metadata["operations"] lists those it
	// supports.
	ErrOperationNotSupported = errors.New("latentserve: the model lacks the operation")
	// ErrModelNotFound: unknown model or version; Metadata["models"] lists the available models.
	ErrModelNotFound = errors.New("latentserve: unknown model")
	// ErrBadReply: the reply violates the protocol; the versions of server and client differ.
	ErrBadReply = errors.New("latentserve: the reply violates the protocol")
)

// Violation is an invalid field of a request.
type Violation struct {
	// Field is a dotted path in the request, for example "images.tensor.shape".
	Field string
	// Description contains the value received and the value expected.
	Description string
}

// Error is the error of a call: returned by the server, raised by the transport, or found before
// anything was sent (the code is then [codes.InvalidArgument]).
//
//	var failure *latentserve.Error
//	if errors.As(err, &failure) && failure.Code == codes.Unavailable { ... }
//
// errors.Is matches the ErrX values of this package, context.Canceled and
// context.DeadlineExceeded.
type Error struct {
	// Code is the gRPC status code.
	Code codes.Code
	// Message contains the cause, the expected value, and a remedy.
	Message string
	// Reason is the server's name of the error, for example "QUEUE_FULL"; empty if the error does
	// not come from the server.
	Reason string
	// Domain is "latentserve" if the server sent a Reason.
	Domain string
	// Metadata contains details of Reason; "request_id" identifies the call in the server's log.
	Metadata map[string]string
	// Violations are the invalid fields of the request.
	Violations []Violation
	// RetryAfter is the delay before a retry that the server requests; 0 if there is none.
	RetryAfter time.Duration

	kind  error
	cause error
}

// Error returns the code, the message, and the details that the message does not contain.
func (e *Error) Error() string {
	var text strings.Builder
	fmt.Fprintf(&text, "latentserve: %s: %s", codeName(e.Code), e.Message)
	for _, violation := range e.Violations {
		// The server often uses its only violation as the message.
		if !strings.Contains(e.Message, violation.Description) {
			fmt.Fprintf(&text, "; %s: %s", violation.Field, violation.Description)
		}
	}
	if id := e.Metadata["request_id"]; e.Code == codes.Internal && !strings.Contains(e.Message, id) {
		fmt.Fprintf(&text, "; for the cause, search the server's log for request id %s", id)
	}
	for _, key := range []string{"models", "operations"} {
		if have := e.Metadata[key]; have != "" && !strings.Contains(e.Message, have) {
			fmt.Fprintf(&text, "; available: %s", have)
		}
	}
	if e.RetryAfter > 0 {
		fmt.Fprintf(&text, "; retry after %v", e.RetryAfter)
	}
	return text.String()
}

// Unwrap returns the gRPC error; nil for an error found before anything was sent.
func (e *Error) Unwrap() error { return e.cause }

// Is reports to errors.Is the kind of the error.
func (e *Error) Is(target error) bool {
	switch target {
	case context.Canceled:
		return e.Code == codes.Canceled
	case context.DeadlineExceeded:
		return e.Code == codes.DeadlineExceeded
	default:
		return e.kind != nil && target == e.kind
	}
}

// GRPCStatus supports status.Code and status.Convert of grpc-go.
func (e *Error) GRPCStatus() *status.Status {
	if e.cause != nil {
		return status.Convert(e.cause)
	}
	return status.New(e.Code, e.Message)
}

// FromError converts any error of a gRPC call to an Error, including errors of calls made with the
// generated stubs; nil for nil.
func FromError(err error) *Error { return fromError(err, "") }

// fromError also has a default message, for methods whose server sends none.
func fromError(err error, unsaid string) *Error {
	if err == nil {
		return nil
	}
	if already, ok := errors.AsType[*Error](err); ok {
		return already
	}
	converted, ok := status.FromError(err)
	if !ok {
		converted = status.FromContextError(err)
	}
	failure := &Error{Code: converted.Code(), Message: converted.Message(), cause: err}
	if failure.Message == "" {
		failure.Message = unsaid
	}
	if failure.Message == "" {
		failure.Message = "the server sent no message"
	}
	for _, detail := range converted.Details() {
		switch detail := detail.(type) {
		case *errdetails.ErrorInfo:
			failure.Reason, failure.Domain = detail.GetReason(), detail.GetDomain()
			failure.Metadata = detail.GetMetadata()
		case *errdetails.BadRequest:
			for _, v := range detail.GetFieldViolations() {
				failure.Violations = append(failure.Violations, Violation{v.GetField(), v.GetDescription()})
			}
		case *errdetails.RetryInfo:
			failure.RetryAfter = detail.GetRetryDelay().AsDuration()
		}
	}
	failure.kind = kindOf(failure)
	return failure
}

func kindOf(failure *Error) error {
	switch {
	case failure.Reason == "QUEUE_FULL":
		return ErrQueueFull
	case failure.Reason == "OPERATION_NOT_SUPPORTED":
		return ErrOperationNotSupported
	case failure.Reason == "MODEL_NOT_FOUND":
		return ErrModelNotFound
	// This error comes from gRPC itself, which sends a message without details.
	case failure.Code == codes.ResourceExhausted && strings.Contains(failure.Message, "larger than max"):
		return ErrMessageTooLarge
	default:
		return nil
	}
}

// invalid returns the error for an argument that is invalid before anything is sent.
func invalid(field, description string) *Error {
	return &Error{
		Code:       codes.InvalidArgument,
		Message:    field + ": " + description,
		Violations: []Violation{{field, description}},
	}
}

func badReply(message string) *Error {
	return &Error{
		Code:    codes.Internal,
		Message: message + "; the versions of the server and this client differ: update the older one",
		kind:    ErrBadReply,
	}
}

// codeName returns the name of a code in the gRPC specification.
func codeName(code codes.Code) string {
	names := [...]string{
		"OK", "CANCELLED", "UNKNOWN", "INVALID_ARGUMENT", "DEADLINE_EXCEEDED", "NOT_FOUND",
		"ALREADY_EXISTS", "PERMISSION_DENIED", "RESOURCE_EXHAUSTED", "FAILED_PRECONDITION", "ABORTED",
		"OUT_OF_RANGE", "UNIMPLEMENTED", "INTERNAL", "UNAVAILABLE", "DATA_LOSS", "UNAUTHENTICATED",
	}
	if int(code) < len(names) {
		return names[code]
	}
	return code.String()
}
