//! Tests of whole tasks: documents through a model made here.
