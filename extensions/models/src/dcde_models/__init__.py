"""What every part of DCDE Hub shares: site descriptors, capability documents and the decision."""
