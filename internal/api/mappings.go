package api

import (
	"context"
	"net/http"

	"github.com/lockstep-sync/lockstep"
)

const tagMappings = "Labels and mappings"

type labelCreate struct {
	Body struct {
		Account     string             `json:"account,omitempty" maxLength:"200" doc:"Id or name of the email account; may be left out when there is only one."`
		Name        string             `json:"name" maxLength:"200"`
		Type        lockstep.FieldType `json:"type" enum:"text,number,date,boolean"`
		Private     bool               `json:"private,omitempty"`
		Default     string             `json:"default,omitempty" maxLength:"2000"`
		Description string             `json:"description,omitempty" maxLength:"2000"`
	}
}

type labelPatch struct {
	ID   string `path:"id" maxLength:"80"`
	Body struct {
		Private     *bool   `json:"private,omitempty"`
		Default     *string `json:"default,omitempty" maxLength:"2000"`
		Description *string `json:"description,omitempty" maxLength:"2000"`
	}
}

type mappingCreate struct {
	Body struct {
		Account   string               `json:"account,omitempty" maxLength:"200" doc:"Id or name of the email account; may be left out when there is only one."`
		Label     string               `json:"label" maxLength:"200" doc:"Name of the data label."`
		Table     string               `json:"table" maxLength:"200" example:"contact"`
		Direction lockstep.Direction   `json:"direction" enum:"to_platform,to_crm"`
		Column    string               `json:"column" maxLength:"200" example:"firstname"`
		Winner    lockstep.Winner      `json:"winner,omitempty" enum:"newest,crm,platform,hold" doc:"Which side's value stays when both changed; newest when left out."`
		Empty     lockstep.EmptyPolicy `json:"empty,omitempty" enum:"clear,keep,default" doc:"What an empty value does on the other side; clear when left out."`
		Default   string               `json:"default,omitempty" maxLength:"2000"`
		Truncate  bool                 `json:"truncate,omitempty" doc:"Cut a text that is too long for the other side."`
		AsNumber  bool                 `json:"as_number,omitempty" doc:"Send an option's number instead of its label."`
	}
}

type mappingPatch struct {
	ID   string `path:"id" maxLength:"80"`
	Body struct {
		Label     *string               `json:"label,omitempty" maxLength:"200"`
		Table     *string               `json:"table,omitempty" maxLength:"200"`
		Direction *lockstep.Direction   `json:"direction,omitempty" enum:"to_platform,to_crm"`
		Column    *string               `json:"column,omitempty" maxLength:"200"`
		Winner    *lockstep.Winner      `json:"winner,omitempty" enum:"newest,crm,platform,hold"`
		Empty     *lockstep.EmptyPolicy `json:"empty,omitempty" enum:"clear,keep,default"`
		Default   *string               `json:"default,omitempty" maxLength:"2000"`
		Truncate  *bool                 `json:"truncate,omitempty"`
		AsNumber  *bool                 `json:"as_number,omitempty"`
	}
}

// ByID names one thing in a path.
type ByID struct {
	ID string `path:"id" maxLength:"80"`
}

func (s *server) mappings() {
	handle(s, operation("list-data-labels", http.MethodGet, "/data-labels", tagMappings, "The data labels"),
		func(ctx context.Context, in *InAccount) (*pageOut[lockstep.DataLabel], error) {
			return ofAccounts(ctx, s, in.Account, s.app.Labels)
		})
	create := operation("create-data-label", http.MethodPost, "/data-labels", tagMappings, "Make a data label", withBody...)
	create.Description = "The next data-labels run makes the field on the platform; the label can be mapped once it is synced."
	create.DefaultStatus = http.StatusCreated
	handle(s, create, func(ctx context.Context, in *labelCreate) (*oneOut[lockstep.DataLabel], error) {
		b := in.Body
		acc, err := s.app.Account(ctx, b.Account)
		if err != nil {
			return nil, err
		}
		return one(s.app.SaveLabel(ctx, lockstep.DataLabel{Account: acc.ID, Name: b.Name, Type: b.Type, Private: b.Private, Default: b.Default, Description: b.Description}))
	})
	handle(s, operation("change-data-label", http.MethodPatch, "/data-labels/{id}", tagMappings, "Change a data label; its name and type are fixed", withBody...),
		func(ctx context.Context, in *labelPatch) (*oneOut[lockstep.DataLabel], error) {
			l, err := s.label(ctx, in.ID)
			if err != nil {
				return nil, err
			}
			set(&l.Private, in.Body.Private)
			set(&l.Default, in.Body.Default)
			set(&l.Description, in.Body.Description)
			return one(s.app.SaveLabel(ctx, l))
		})
	handle(s, operation("delete-data-label", http.MethodDelete, "/data-labels/{id}", tagMappings, "Forget a data label that no mapping uses; the platform's field stays", http.StatusConflict),
		func(ctx context.Context, in *ByID) (*struct{}, error) {
			l, err := s.label(ctx, in.ID)
			if err != nil {
				return nil, err
			}
			return nil, s.app.DeleteLabel(ctx, l.Account, l.ID)
		})

	handle(s, operation("list-data-mappings", http.MethodGet, "/data-mappings", tagMappings, "The data mappings"),
		func(ctx context.Context, in *InAccount) (*pageOut[lockstep.DataMapping], error) {
			return ofAccounts(ctx, s, in.Account, s.app.Mappings)
		})
	create = operation("create-data-mapping", http.MethodPost, "/data-mappings", tagMappings, "Map a data label to or from a column", withBody...)
	create.DefaultStatus = http.StatusCreated
	handle(s, create, func(ctx context.Context, in *mappingCreate) (*oneOut[lockstep.DataMapping], error) {
		b := in.Body
		acc, err := s.app.Account(ctx, b.Account)
		if err != nil {
			return nil, err
		}
		return one(s.app.SaveMapping(ctx, lockstep.DataMapping{
			Account: acc.ID, Label: b.Label, Table: b.Table, Direction: b.Direction, Column: b.Column,
			Winner: b.Winner, Empty: b.Empty, Default: b.Default, Truncate: b.Truncate, AsNumber: b.AsNumber,
		}))
	})
	handle(s, operation("change-data-mapping", http.MethodPatch, "/data-mappings/{id}", tagMappings, "Change a mapping; what is left out stays", withBody...),
		func(ctx context.Context, in *mappingPatch) (*oneOut[lockstep.DataMapping], error) {
			m, err := s.mapping(ctx, in.ID)
			if err != nil {
				return nil, err
			}
			b := in.Body
			set(&m.Label, b.Label)
			set(&m.Table, b.Table)
			set(&m.Direction, b.Direction)
			set(&m.Column, b.Column)
			set(&m.Winner, b.Winner)
			set(&m.Empty, b.Empty)
			set(&m.Default, b.Default)
			set(&m.Truncate, b.Truncate)
			set(&m.AsNumber, b.AsNumber)
			return one(s.app.SaveMapping(ctx, m))
		})
	handle(s, operation("delete-data-mapping", http.MethodDelete, "/data-mappings/{id}", tagMappings, "Delete a mapping; values that were written stay"),
		func(ctx context.Context, in *ByID) (*struct{}, error) { return nil, s.app.DeleteMapping(ctx, in.ID) })
}

func set[T any](to *T, from *T) {
	if from != nil {
		*to = *from
	}
}

func (s *server) label(ctx context.Context, id string) (lockstep.DataLabel, error) {
	return find(ctx, s, "data label", s.app.Labels, func(l lockstep.DataLabel) bool { return l.ID == id })
}

func (s *server) mapping(ctx context.Context, id string) (lockstep.DataMapping, error) {
	return find(ctx, s, "data mapping", s.app.Mappings, func(m lockstep.DataMapping) bool { return m.ID == id })
}

func find[T any](ctx context.Context, s *server, what string, get func(context.Context, string) ([]T, error), is func(T) bool) (found T, err error) {
	all, err := ofAccounts(ctx, s, "", get)
	if err != nil {
		return found, err
	}
	for _, v := range all.Body.Items {
		if is(v) {
			return v, nil
		}
	}
	return found, &lockstep.Error{Code: lockstep.CodeNotFound, Msg: "there is no such " + what}
}
