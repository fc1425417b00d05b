"""Records of finished runs, and what people see of them: tables, figures, MLflow, published results."""
