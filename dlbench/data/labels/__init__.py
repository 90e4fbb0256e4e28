"""Labels: class indices for any grid (`dlbench.data.grid.Labels`), from codes or from shapes."""
